"""Dates finer than a year.

Safe Harbor (45 CFR 164.514(b)(2)(i)(C)) lets only the year stand, so a month, a weekday, a holiday or a season
with its year is a date as well. "3/4" may be a date, a pain score or a fraction: it counts by the words around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules.pattern import compile_rule, scan

__all__ = ["MONTH", "find"]

_SHORT = r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
_LONG = r"january|february|march|april|may|june|july|august|september|october|november|december"
# The months of the languages in which European records reach English readers, where they differ from English ones.
_FOREIGN = (
    r"januar|jänner|februar|märz|maerz|mai|juni|juli|oktober|dezember|janvier|f[ée]vrier|mars|avril"
    r"|juin|juillet|ao[ûu]t|septembre|octobre|novembre"
    r"|d[ée]cembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre"
    r"|diciembre|gennaio|febbraio|aprile|maggio"
    r"|giugno|luglio|settembre|ottobre|dicembre|januari|februari|maart|mei|augustus|janeiro|fevereiro"
    r"|mar[çc]o|maio|junho|julho|setembro|outubro"
    r"|novembro|dezembro"
)
MONTH = rf"(?:{_LONG}|{_FOREIGN}|(?:{_SHORT})\b\.?)"
_YEAR = r"(?:1[89]|20)\d\d"
_ANY_YEAR = rf"(?:{_YEAR}|'?\d\d)"
_DAY = r"(?:[12]\d|3[01]|0?[1-9])"
_MON = r"(?:1[0-2]|0?[1-9])"
_TH = r"(?:st|nd|rd|th|er|°|º)"
_ORDINAL_WORD = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth"
    r"|fourteenth|fifteenth|sixteenth|seventeenth"
    r"|eighteenth|nineteenth|twentieth|thirtieth|(?:twenty|thirty)[ -](?:first|second|third|fourth"
    r"|fifth|sixth|seventh|eighth|ninth))"
)
# Years and days as people dictate them: "nineteen fifty eight", "twenty twenty three", "two thousand and four".
_UNITS = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_TEENS = r"(?:ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen)"
_TENS = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_YEAR_WORDS = (
    rf"(?:(?:nineteen|twenty|eighteen)(?:[ -]hundred)?(?:[ -](?:and |oh[ -]|o[ -])?(?:{_TENS}(?:[ -]{_UNITS}\b)?"
    rf"|{_TEENS}|{_UNITS}))"
    rf"|two thousand(?:(?: and)? (?:{_TENS}(?:[ -]{_UNITS}\b)?|{_TEENS}|{_UNITS}))?)\b"
)
_TIME = r"(?:[T ,]{1,2}(?:at )?\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?: ?[ap]\.?m\b\.?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
_WEEKDAY = (
    r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|sonnabend"
    r"|(?:lun|mar|mercre|jeu|vendre|same)di|dimanche|lunes|martes|mi[ée]rcoles|jueves|viernes|s[áa]bado|domingo"
    r"|(?:segunda|ter[çc]a|quarta|quinta|sexta)-feira|(?:maan|dins|woens|donder|vrij|zater|zon)dag"
    r"|luned[iì]|marted[iì]|mercoled[iì]|gioved[iì]|venerd[iì]|domenica|(?:mån|tis|ons|tors|fre|lör|sön)dag"
    r"|(?<!\w)(?:Mon|Tue|Tues|Wed|Thu|Thur|Thurs|Fri)\b\.?)"
)
_RANGE = rf"(?:\s?(?:-|to|through|thru|until|and|&|,|/)\s?{_DAY}{_TH}?(?!\d|:|/\d))"
_BEFORE = re.compile(
    r"\b(?:on|since|started|commenced|begun|gp|ecg|ekg|mri|ct|us|echo|x-?ray|bloods|review|redress|redo|from"
    r"|until|till|to|through|thru|by|dated?|before|after|around|of|between|and|started"
    r"|stopped|seen|visit|admitted|discharged|due|labs?|drawn|cultures?|collected|noted|ordered"
    r"|scheduled|appt|surgery|procedure|performed|repeat|last|done|fell|returned|given|began|resolved"
    r"|effective|next|was|dos|adm|d/c|dc|f/u|w/o|wk of|week of|as of|in place)[ :(]{1,2}$",
    re.I,
)
_SCORE = re.compile(
    r"pain|relief|decreas|improv|reduc|down to|worse|ache|discomfort|strength|motor|score|scale|grade"
    r"|murmur|reflex|dtr|pulse|out of|systolic|apgar|mallampati"
    r"|bilaterally|power|muscle|intensity|gcs|coma|mmse|moca|phq|gad|nihss|vision|visual|acuity"
    r"|snellen|tabs?|tablets?|cups?|scored?|rating|rated|rates|points|times|pack|teaspoon|inch|of the"
    r"|mcburney|nyha|audit|cage|questions|correct\b|recall|delayed|items|pulses",
    re.I,
)
_HOLIDAY = (
    r"(?:christmas(?: eve| day)?|thanksgiving(?: day)?|easter(?: sunday| monday)?|halloween"
    r"|new year'?s?(?:'s)?(?: eve| day)|memorial day|labor day"
    r"|independence day|(?:fourth|4th) of july|valentine'?s day|veterans day|columbus day"
    r"|mother'?s day|father'?s day|st\.? patrick'?s day"
    r"|martin luther king(?: jr\.?)? day|mlk day|presidents'? day|good friday|hanukkah|diwali|ramadan"
    r"|eid(?: al-\w+)?|passover|yom kippur|rosh hashanah|boxing day)"
)


def _near_score(match: re.Match[str]) -> bool:
    text = match.string
    before = re.split(r"[.;] |\n", text[max(0, match.start() - 40) : match.start()])[-1]
    after = re.split(r"[.;] |\n", text[match.end() : match.end() + 25], maxsplit=1)[0]
    return bool(_SCORE.search(before) or _SCORE.search(after))


def _month_day(match: re.Match[str]) -> bool:
    """m/d without a year: a leading zero or a day over 12 makes it a date unless a score is spoken of near it."""
    left, right = match["left"], match["right"]
    if not (1 <= int(left) <= 12 and 1 <= int(right) <= 31) or _near_score(match):
        return False
    if left.startswith("0") or right.startswith("0") or int(right) > 12:
        return True
    return int(left) > int(right) or int(right) in (7, 9, 11)  # no fraction, and no usual scale ends there


def _plausible(match: re.Match[str]) -> bool:
    """Two of the three numbers are a month and a day, in either order."""
    a, b = int(match["a"]), int(match["b"])
    return (1 <= a <= 12 and 1 <= b <= 31) or (1 <= a <= 31 and 1 <= b <= 12)


def _compact(match: re.Match[str]) -> bool:
    return 1 <= int(match["m"]) <= 12 and 1 <= int(match["d"]) <= 31


def _announced(match: re.Match[str]) -> bool:
    """Whether a word such as "on" or "since" stands before: looked up from the number, which is rarer than the word."""
    return bool(_BEFORE.search(match.string, max(0, match.start() - 14), match.start()))


def _no_score(match: re.Match[str]) -> bool:
    return not _near_score(match)


_NUMERIC = (
    compile_rule(
        "DATE", 0.98, rf"(?<![\d.])(?:1[89]|20)\d\d([-/.])(?P<a>\d{{1,2}})\1(?P<b>\d{{1,2}})(?!\d){_TIME}", _plausible
    ),
    compile_rule(
        "DATE",
        0.95,
        rf"(?<![\d./-])(?P<a>\d{{1,2}}) ?([-/.]) ?(?P<b>\d{{1,2}}) ?\2 ?(?:{_YEAR}|'?\d\d)(?![\d/]" rf"|[.-]\d){_TIME}",
        _plausible,
    ),
    compile_rule("DATE", 0.9, rf"(?<![\d./-])(?P<a>\d{{1,2}}) (?P<b>\d{{1,2}}) {_YEAR}(?!\d){_TIME}", _plausible),
    compile_rule(
        "DATE",
        0.9,
        r"(?<![\d.])(?:19|20)\d\d(?P<m>\d\d)(?P<d>\d\d)(?:T?[0-2]\d[0-5]\d(?:[0-5]\d(?:\.\d{1,6})?)?(?:Z"
        r"|[+-]\d{4})?)?(?!\d)",
        _compact,
    ),
    compile_rule("DATE", 0.9, rf"(?<![\d./-])(?:0?[1-9]|1[0-2])[/-]{_YEAR}(?![\d/-])"),
    compile_rule("DATE", 0.9, rf"(?<![\d./-]){_YEAR}[/-](?:0[1-9]|1[0-2])(?![\d/-])"),
    compile_rule(
        "DATE", 0.9, r"\b(?:exp(?:ir(?:es|y|ation)(?: date)?)?)[\s.:]{0,3}(?P<value>(?:0?[1-9]|1[0-2])/\d\d)(?!\d)"
    ),
    compile_rule("DATE", 0.8, r"(?<![\w./%-])(?P<left>\d{1,2})/(?P<right>\d{1,2})(?![\w/%]|\.\d)", _month_day),
    compile_rule(
        "DATE",
        0.75,
        rf"(?<![\w./-]){_MON}/{_DAY}(?: ?(?:-|to|and|through|,) ?{_MON}/{_DAY})?(?![\w/%]|\.\d)",
        lambda m: _announced(m) and not _near_score(m),
    ),
    compile_rule(  # day before month: "since 30/8", "(21/03)"
        "DATE",
        0.75,
        r"(?<![\w./-])(?:1[3-9]|2\d|3[01])/(?:0?[1-9]|1[0-2])(?![\w/%-]|\.\d)",
        lambda m: (_announced(m) or m[0][-2:-1] == "0") and m[0] != "24/7" and not _near_score(m),
    ),
    compile_rule("DATE", 0.8, r"(?<![\w./-])(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?= \d{1,2}:\d\d)"),
    compile_rule(
        "DATE",
        0.85,
        rf"(?<![\w.])(?:{_WEEKDAY}|(?:mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)\b\.?),? "
        rf"(?:the (?P<n>\d{{1,2}}){_TH}\b|(?:{_MON}/{_DAY}|{_DAY}[./]{_MON}\.?)(?![\w/]))",
    ),
    compile_rule(
        "DATE",
        0.8,
        r"\b(?:on|since|dated|am|vom|seit|den|ab|op|sinds|le|depuis|el|desde|em|dia|il|dal) "
        rf"(?P<value>{_DAY}\.{_MON}\.)(?!\d)",
    ),
    compile_rule("DATE", 0.7, rf"(?m)^[ \t*-]{{0,4}}(?P<value>{_MON}/{_DAY})(?= ?[:-] |:|\t| {{2}}|\|)", _no_score),
    compile_rule(
        "DATE",
        0.8,
        r"(?m)\b(?:dob|date of birth|birth ?date|born(?: on)?|d\.o\.b\.?|dod"
        r"|date)\b[\s:.=#-]{0,4}(?P<value>\d{1,2}[-/. ]\d{1,2}(?:[-/. ]\d{2,4})?)(?!\d)",
    ),
    compile_rule(
        "DATE",
        0.8,
        r"\b(?:on|since|from|to|until|by|am|vom|bis|ab|seit|le|du|au) (?P<value>(?:0[1-9]|[12]\d"
        r"|3[01])\.(?:0[1-9]|1[0-2])\.)(?!\d)",
    ),
    compile_rule("DATE", 0.8, rf"(?<![\w./-]){_MON}/{_DAY} ?(?:-|to) ?{_MON}/{_DAY}(?![\w/-]|\.\d)", _no_score),
    compile_rule("DATE", 0.8, r"\bQ[1-4][ /-](?:19|20)\d\d\b"),
)
_NAMED = (
    compile_rule(
        "DATE",
        0.97,
        rf"(?:\b(?:{_WEEKDAY})[., ]{{1,3}}(?:the )?)?(?<![\w.]){MONTH}[ .-]{{0,2}}{_DAY}{_TH}?\b(?!:\d"
        rf"|/\d){_RANGE}{{0,3}}(?:(?:\s?,\s?|[ -]|,? of )(?:{_YEAR}|'\d\d|(?<=-)\d\d)(?!\d))?{_TIME}",
    ),
    compile_rule(
        "DATE",
        0.97,
        rf"(?:\b(?:{_WEEKDAY})[., ]{{1,3}}(?:the )?)?(?<![\d.:/])(?:{_DAY}{_TH}?{_RANGE}{{0,2}})[. "
        rf"-]{{0,2}}(?:of |de |day of )?{MONTH}(?![a-z])(?:[ ,.-]{{0,2}}(?:de )?{_ANY_YEAR}(?![\d/:]))"
        rf"?{_TIME}",
    ),
    compile_rule("DATE", 0.95, rf"(?<![\w.]){MONTH}(?:,? of|,| de|[-/])? ?(?:{_YEAR}|'\d\d)(?!\d)"),
    compile_rule("DATE", 0.95, rf"\b{_YEAR}(?:,? |-){MONTH}(?:[ -]{_DAY}(?!\d))?(?![a-z])"),
    compile_rule(
        "DATE",
        0.9,
        rf"(?<!\w)(?:{_LONG})(?: the)? (?:{_ORDINAL_WORD}|{_TENS}(?:[ -]{_UNITS})?|{_UNITS}|{_TEENS})\b"
        rf"(?:,? (?:{_YEAR}\b|{_YEAR_WORDS}))?",
        lambda m: not re.match(r"(?:may|march) (?:the )?\w+(?<!th)(?<!st)(?<!nd)(?<!rd)$", m[0]),  # "may one day"
    ),
    compile_rule(
        "DATE", 0.9, rf"(?:\bthe )?\b{_ORDINAL_WORD} (?:day )?(?:of )?(?:{_LONG})\b(?:,? (?:{_YEAR}\b|{_YEAR_WORDS}))?"
    ),
    compile_rule(
        "DATE",
        0.8,
        rf"\b(?:{_UNITS}|{_TEENS}|{_TENS}) slash (?:{_TENS}(?: {_UNITS})?|{_TEENS}|{_UNITS})"
        rf"(?: slash (?:{_YEAR_WORDS}|{_TENS}(?: {_UNITS})?|{_TEENS}|oh {_UNITS}))?\b",
    ),
    compile_rule(
        "DATE",
        0.75,
        rf"\b(?:(?:tomorrow|today|yesterday|tonight|{_WEEKDAY}),?|on|until|by|since|before"
        rf"|after) the (?P<value>{_ORDINAL_WORD})"
        r"(?= (?:at|for|with|and|he|she|we|they|the|[a-z]{9,})\b|[,.;)]|\s*$)(?! (?:metatarsal|metacarpal"
        r"|intercostal|percentile|ventricle"
        r"|trimester|postoperative|generation))",
    ),
    compile_rule(
        "DATE",
        0.85,
        rf"\b(?:early|mid|late|end of|beginning of|middle of)[ -]{{1,2}}(?:(?:{_LONG})\b|(?:{_SHORT})\b\.?)",
    ),
    compile_rule(
        "DATE",
        0.85,
        r"(?<![\w.-])(?:January|February|April|June|July|August|September|October|November|December"
        r"|JANUARY|FEBRUARY|APRIL|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER)(?![\w])",
        case=True,
    ),
    compile_rule(
        "DATE",
        0.85,
        r"\b(?:[Ii]n|[Ss]ince|[Oo]f|[Ll]ast|[Nn]ext|[Tt]his|[Uu]ntil|[Tt]ill|[Bb]y|[Dd]uring|[Mm]id"
        r"|[Ee]arly|[Ll]ate|[Ff]rom|[Tt]o|[Tt]hrough|[Bb]efore|[Aa]fter|[Pp]ast|[Aa]round|[Aa]nd|[Ee]ach"
        r"|[Ee]very)[ -](?P<value>March|May|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)(?!\w)",
        case=True,
    ),
    compile_rule(
        "DATE",
        0.8,
        r"(?<![\w.])(?:March|May)(?=[ -](?:to|through|until|and|or|and)[ -](?:Jan|Feb|Mar|Apr|May|Jun|Jul"
        r"|Aug|Sep|Oct|Nov|Dec))",
        case=True,
    ),
    compile_rule(
        "DATE", 0.8, r"(?<=[a-z,] )March(?= (?:he|she|they|and|with|when|for|after|but|the)\b|[.,;)])", case=True
    ),
    compile_rule(
        "DATE",
        0.8,
        r"\b(?:on|by|until|since|from|before|after|for|of) the (?P<value>(?:[12]?\d"
        rf"|3[01]){_TH})(?! (?:percentile|visit|day|time|episode|dose|admission|attempt|degree|rib|toe"
        r"|finger|digit|metatarsal|metacarpal|nerve|ventricle|floor|cervical|lumbar|thoracic|intercostal"
        r"|week|month|year|hour|cranial|postoperative))\b",
    ),
    compile_rule("DATE", 0.8, r"(?<!\w)(?:mon|tues|wednes|thurs|fri|satur|sun)days?(?!\w)"),
    compile_rule(
        "DATE",
        0.8,
        r"(?<![\w.])(?:Mon|Tue|Tues|Wed|Thu|Thur|Thurs|Fri|Sat|Sun)(?=[ ,.]{1,2}(?:\d|at\b|[ap]m\b|morning"
        r"|afternoon|evening))",
        case=True,
    ),
    compile_rule("DATE", 0.8, r"(?<=[a-z] )(?:Mon|Tue|Tues|Wed|Thu|Thur|Thurs|Fri|Sat|Sun)(?![\w-]| \d)", case=True),
    compile_rule("DATE", 0.8, rf"\b{_HOLIDAY}(?!\w)(?: (?:19|20)\d\d)?"),
    compile_rule("DATE", 0.8, r"\b(?:spring|summer|fall|autumn|winter)(?: of|,)? (?:19|20)\d\d\b"),
)


def find(view: str) -> Iterator[Finding]:
    """Dates finer than a year in `view`."""
    yield from scan(_NUMERIC, view)
    yield from scan(_NAMED, view)
