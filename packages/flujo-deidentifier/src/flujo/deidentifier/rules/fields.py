"""Labelled values ("Patient: ...", "Employer: ...", `"last_name": "..."`) and columns of tables with such heads.

A label says what its value is, whatever the value looks like: names that are ordinary words or in
small letters are found by that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare, lexicon
from flujo.deidentifier.rules.pattern import compile_small, small_letters
from flujo.deidentifier.rules.vocabulary import CREDENTIALS, NOT_NAMES

__all__ = ["Fields", "find"]

_WHO = (
    r"patient|pt|client|resident|member|subscriber|insured|guarantor|beneficiary|policy ?holder"
    r"|responsible party|legal|preferred|full|first|last|middle|maiden|given|family|nick"
    r"|mother|father|spouse|parent|guardian|contact|caregiver|provider|physician|doctor|nurse|employee"
    r"|student|donor|recipient|applicant|claimant|subject|user|sur|paciente|patienten?"
)
_NAME = (
    rf"(?:(?:{_WHO})(?:'?s)?[ _-]{{0,2}}){{0,3}}name(?:s|[ _](?:\([a-z ,]{{1,20}}\)|of (?:patient|child"
    r"|client|insured|parent|guardian)))?|surname|forename|fname|lname|nome(?: completo)?|nom(?: de famille)?"
    r"|pr[ée]nom|nombre|apellidos?|vorname|nachname|familienname|naam|achternaam|voornaam|cognome"
    r"|h[ọo](?: v[àa])? t[êe]n|alias(?:es)?|a\.?k\.?a\.?"
)
_ROLE = (
    r"patient|pt|client|resident|member|subscriber|insured|guarantor|beneficiary|responsible party"
    r"|policy ?holder|(?:attending|referring|ordering|primary care|admitting|consulting|family"
    r"|treating|requesting|covering|supervising"
    r"|collaborating|performing|interpreting|rendering|operating|assistant|first|second|primary|co"
    r"|on-call|discharge|discharging|responsible|circulating|scrub|staff|charge)?[ -]{0,1}(?:physician"
    r"|provider|surgeon|doctor|md|nurse|np|pa|rn"
    r"|practitioner|clinician|radiologist|pathologist|an[a]?esthesi(?:ologist|st)|cardiologist"
    r"|oncologist|psychiatrist|psychologist|therapist|consultant|resident|fellow|intern|attending"
    r"|assistant|dentist|midwife|dietitian|pharmacist|technologist|technician"
    r"|sonographer|phlebotomist|interpreter|scribe|author|preceptor)s?(?: name)?|attending|pcp|gp"
    r"|(?:electronically |digitally )?(?:signed|e-signed|dictated|transcribed|reviewed|authenticated"
    r"|verified|attested|approved|prepared|completed|entered|documented|written|typed|performed"
    r"|collected|administered|interpreted|ordered|referred|requested|witnessed|cosigned|co-signed"
    r"|authorized|read|reported|recorded|edited|accompanied|called|received|provided|seen|examined"
    r"|evaluated|faxed|notified|obtained|interviewed|assessed|scribed|drawn)(?: electronically)?(?: by"
    r"| to| from| for)"
    r"|dictator|transcriptionist|author|signature|signed|cc|bcc|to|from|attn|attention|dear"
    r"|emergency contacts?(?: name)?(?: ?#?\d)?|next of kin|nok|(?:health ?care |medical )?(?:proxy"
    r"|surrogate|poa|hcp|hcpoa|dpoa)|power of attorney|decision[ -]maker|guardian|mother|father"
    r"|parents?|mom|dad|spouse"
    r"|husband|wife|partner|son|daughter|sister|brother|sibling|child|children|caregiver"
    r"|contact(?: person)?|interpreter|witness|informant|historian|source|caller|spoke with"
    r"|case manager|social worker|care (?:manager|coordinator|team)|coordinator|supervisor|tech"
    r"|team|lawyer|attorney|teacher|donor|recipient|claimant|baby|infant|mrs?|ms|dr|re|regarding"
    r"|adjuster|agent|broker|foreman|dispatcher|key ?worker|lodger|principal|m[ée]decin(?: traitant)?"
    r"|infirmi[èe]re?|hausarzt|arzt|[äa]rztin"
    r"|pfleger(?:in)?|huisarts|verpleegkundige|m[ée]dic[oa]|enfermeir[oa]|enfermer[oa]|acompanhante|pacientes?"
    r"|pati[ëe]nt|patientin"
    r"|b[áa]c s[ĩi]|b[ệe]nh nh[âa]n|medico curante"
    r"|subject|staff|companion|visitor|escort|driver|roommate|pharmacist"
)
_PLACE = (
    r"(?:(?:home|mailing|street|permanent|current|work|billing|patient|residential|postal|office"
    r"|facility|clinic|employer)[ _]?)?address(?:[ _]?(?:line)?[ _]?\d)?|addr|street"
    r"|city(?:[ _/]{1,3}(?:state|town)){0,2}(?:[ _/]{1,3}zip)?|town|county|borough|parish|precinct"
    r"|neighbou?rhood|village|residence|resides|lives (?:in|at)|birth ?place|place of birth|hometown"
    r"|district|municipality|location of (?:incident|accident)"
)
_ORG = (
    r"employer(?:'s name| name)?|company|school|workplace|place of (?:work|employment)"
    r"|pharmacy(?: name)?|preferred pharmacy|facility|hospital|clinic|practice|organi[sz]ation"
    r"|institution|nursing home|snf|agency|insurer|insurance(?: company| carrier| plan| name)?|payer"
    r"|payor|carrier|bank|church|university|college|daycare"
    r"|home health(?: agency)?|referring (?:facility|hospital|clinic)|transferr(?:ed from"
    r"|ing (?:facility|hospital))|ordering facility|site|laboratory|performing lab"
)
_CODE = (
    r"(?:user|login|user[ _]?name|user[ _]?id|screen ?name|handle|twitter|instagram|facebook|skype"
    r"|linkedin|tiktok|snapchat|telegram)"
)
_KINDS = (("name", _NAME), ("role", _ROLE), ("LOCATION", _PLACE), ("ORGANIZATION", _ORG), ("ID", _CODE))
_HEADS = tuple((kind, re.compile(rf"(?:{regex})", re.IGNORECASE)) for kind, regex in _KINDS)
_TABLE_HEADS = (
    *_HEADS,
    ("MRN", re.compile(r"mrn|(?:patient|pt|chart|record|medical record|hospital) ?(?:id|no|number|#)", re.IGNORECASE)),
    (
        "DATE",
        re.compile(
            r"(?:d\.?o\.?b\.?|.{0,20}\bdate(?: of \w{1,20})?|date.{0,20}|birth ?day|admitted|discharged|visit"
            r"|day|when)",
            re.IGNORECASE,
        ),
    ),
    (
        "PHONE",
        re.compile(
            r"(?:.{0,20})(?:phone|tel(?:ephone)?|cell|mobile|fax|pager)(?: ?(?:no|number|#))?\.?", re.IGNORECASE
        ),
    ),
    ("ZIP", re.compile(r"zip(?: ?code)?|post(?:al)? ?code", re.IGNORECASE)),
    ("SSN", re.compile(r"ssn|social security.{0,10}", re.IGNORECASE)),
    (
        "ID",
        re.compile(
            r"(?:.{0,25}\b)?(?:id|identifier|account|acct|policy|member|accession|specimen|serial|license"
            r"|licence|plate|claim)(?: ?(?:id|no|number|#))?\.?",
            re.IGNORECASE,
        ),
    ),
)
_LABEL = compile_small(
    r"(?<![\w'])(?:"
    + "|".join(f"(?P<k{i}>{regex})" for i, (_, regex) in enumerate(_KINDS))
    + r")(?P<q>[\"'*_]{0,3})[ \t]{0,4}[:=](?!:|//)[ \t]{0,12}[\"'*_]{0,3}(?:\n[ \t]{0,4})?"
)
_VALUE = re.compile(r"[^\n|\t;{}\[\]<>]{1,120}")
_STOP = re.compile(
    r" {2,}|[\"*]|\s\(|(?<=[a-z]\.) (?=[A-Z])|\s-\s|(?<!\w)[A-Z][\w /'#]{1,24}:|\b(?:DOB|MRN|Age|Sex"
    r"|Gender|Date|Phone|Tel|Fax|on)\b|\d"
)
_PLACE_STOP = re.compile(r" {3,}|[\"*]|(?<=[a-z]{3}\.) (?=[A-Z])|(?<!\w)(?:[A-Z][\w/']{1,15} ?){1,2}:")
_NOTHING = re.compile(
    r"\W*(?:none|n/?a|unknown|not (?:known|given|applicable|available|provided|on file|listed)|nil"
    r"|self|same(?: as above)?|see (?:above|below|chart)|pending|deferred|declined|refused|no|yes|tbd"
    r"|homeless|unemployed|retired|disabled|-+|patient|pt)?\W*",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


class Fields(NamedTuple):
    """What labels and table heads say: findings, and spans that are names."""

    findings: list[Finding]
    names: list[tuple[int, int]]


def find(view: str) -> Fields:
    """The labelled values and table cells of `view`."""
    fields = Fields([], [])
    for match in _LABEL.finditer(small_letters(view)):
        kind = _KINDS[next(i for i in range(len(_KINDS)) if match[f"k{i}"] is not None)][0]
        _collect(view, kind, match.end(), None, fields)
    for kind, start, end in _cells(view):
        _collect(view, kind, start, end, fields)
    return fields


def _collect(view: str, kind: str, start: int, limit: int | None, fields: Fields) -> None:
    value = _VALUE.match(view, start) if limit is None else None
    end = limit if limit is not None else (value.end() if value else start)
    stop = (
        (_STOP if kind in ("name", "role", "ID") else _PLACE_STOP).search(view, start, end) if limit is None else None
    )
    if stop and kind != "ID":
        end = stop.start()
    text = view[start:end]
    if _NOTHING.fullmatch(text):
        return
    if kind in ("name", "role"):
        fields.names.extend(_names(view, start, end, small=kind == "name"))
    elif kind == "ID":
        token = re.compile(r"\s*@?(?P<v>[^\s\"',;]{2,60})").match(view, start, end)
        if token:
            fields.findings.append(Finding(token.start("v"), token.end("v"), "ID", 0.8))
    elif kind in ("LOCATION", "ORGANIZATION"):
        if _particular(text):
            tight = text.rstrip(" .,\"'")
            fields.findings.append(Finding(start + len(text) - len(text.lstrip()), start + len(tight), kind, 0.85))
    elif any(c.isdigit() for c in text):
        tight = text.strip()
        at = start + text.index(tight)
        fields.findings.append(Finding(at, at + len(tight), kind, 0.8))


def _particular(text: str) -> bool:
    """Whether a value names one place or institution, not a kind ("retail", "home")."""
    lex = lexicon()
    words = [w for w in _WORD.findall(text) if len(w) > 1]
    capitals = [w for w in words if w[0].isupper() and bare(w) not in NOT_NAMES and not lex.is_allowed(bare(w))]
    return (
        bool(capitals)
        or any(c.isdigit() for c in text)
        or any(not lex.is_word(bare(w)) and not lex.is_allowed(bare(w)) for w in words)
    )


def _names(view: str, start: int, end: int, *, small: bool) -> Iterator[tuple[int, int]]:
    """The words of a name field that are names: roles, credentials and answers such as "none" are left out."""
    spans = list(_name_words(view, start, end, small=small))
    if len(spans) == 1 and not small and _speech(view, *spans[0], end):
        return
    if any(b - a > 1 for a, b in spans):  # a lone letter is potassium or a vitamin
        yield from spans


def _speech(view: str, start: int, stop: int, end: int) -> bool:
    """ "DOCTOR: Good morning": one ordinary word with a capital, followed by small ones, is what somebody says."""
    low = bare(view[start:stop])
    return lexicon().is_word(low) and low not in lexicon().given and bool(re.match(r"[,!?]? [a-z]{2}", view[stop:end]))


def _name_words(view: str, start: int, end: int, *, small: bool) -> Iterator[tuple[int, int]]:
    lex = lexicon()
    for match in _WORD.finditer(view, start, end):
        text, low = match[0], bare(match[0].removesuffix("'s"))
        if low in CREDENTIALS and (text.isupper() or text[0].isupper()) and match.start() > start:
            continue
        if (
            low in NOT_NAMES
            or low in ("mr", "mrs", "ms", "dr", "prof", "miss", "dept")
            or (lex.is_allowed(low) and low not in lex.eponyms)
        ):
            continue
        capital = text[0].isupper()
        known = lex.is_name(low) or (not lex.is_word(low) and len(low) > 2 and not lex.is_medical(low))
        if capital or known or small:
            yield match.span()
        elif low not in ("de", "van", "von", "la", "el", "al", "bin", "der", "den", "y", "and", "da", "dos", "di"):
            return


def _kind_of(head: str) -> str | None:
    plain = " ".join(re.sub(r"[\"'*_:`]", " ", head).split())
    return next((kind for kind, regex in _TABLE_HEADS if regex.fullmatch(plain)), None) if plain else None


def _cells(view: str) -> Iterator[tuple[str, int, int]]:
    """Cells under heads that say what they hold, in tables drawn with `|`, tabs, commas or semicolons."""
    heads: list[str | None] = []
    mark = ""
    at = 0
    for line in view.split("\n"):
        if mark and line.count(mark) >= max(1, len(heads) - 2):
            yield from _row(line, mark, heads, at)
        else:
            mark, heads = _table_head(line)
        at += len(line) + 1


def _table_head(line: str) -> tuple[str, list[str | None]]:
    if len(line) > 400:
        return "", []
    for mark in ("|", "\t", ",", ";"):
        cells = line.split(mark)
        if len(cells) < 2 or any(len(c.strip()) > 40 or any(x.isdigit() for x in c) for c in cells):
            continue
        heads = [_kind_of(c) for c in cells]
        if sum(h is not None for h in heads) >= (2 if mark in ",;" else 1):
            return mark, heads
    return "", []


def _row(line: str, mark: str, heads: list[str | None], at: int) -> Iterator[tuple[str, int, int]]:
    for head, cell in zip(heads, line.split(mark), strict=False):
        if head and cell.strip(" -:\"'"):
            yield head, at, at + len(cell)
        at += len(cell) + 1
