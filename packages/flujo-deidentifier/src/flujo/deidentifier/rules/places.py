"""Places below a state: streets, units, post boxes, towns, counties, postcodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare, lexicon
from flujo.deidentifier.rules import places_abroad
from flujo.deidentifier.rules.pattern import Rule, compile_rule, scan
from flujo.deidentifier.rules.vocabulary import GENERIC, is_generic

__all__ = ["CAPITALISED", "CAPITALISED_WORDS", "PLAIN_WORD", "STATES", "find"]

STATES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii"
    "|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky"
    "|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska"
    "|Nevada|New Hampshire|New Jersey|New Mexico"
    "|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island"
    "|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont"
    "|Virginia|Washington|West Virginia|Wisconsin|Wyoming|Ontario|Quebec|Alberta|Manitoba"
    "|Saskatchewan|Nova Scotia|British Columbia|Puerto Rico"
)
_CODES = (
    "A[LKZRBE]|C[AOT]|D[EC]|FL|GA|HI|I[DLNA]|K[SY]|LA|M[EDAINSOTB]|N[EVHJMYCDLSTU]|O[HKRN]|P[ARE]"
    "|Q[C]|RI|S[CDK]|T[NX]|UT|V[TAI]|W[AVIY]|BC|AB|YT"
)
CAPITALISED = r"[A-ZÀ-ÖØ-Þ][\w'.-]{0,30}"
PLAIN_WORD = r"(?:(?:St|Mt|Ft)\. )?[A-ZÀ-ÖØ-Þ][\w'&-]{0,30}"  # as CAPITALISED, but a full stop ends it
CAPITALISED_WORDS = rf"(?:{CAPITALISED} ){{0,3}}{CAPITALISED}"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd|Court|Ct|Circle|Cir|Place|Pl"
    r"|Terrace|Ter|Way|Parkway|Pkwy|Highway|Hwy|Square"
    r"|Sq|Trail|Trl|Loop|Alley|Aly|Crescent|Cres|Close|Row|Plaza|Turnpike|Tpke|Pike|Run|Path|Crossing"
    r"|Xing|Commons|Green|Grove|Gardens|Hill|Mews|Walk"
    r"|Ridge|Point|Cove|Bend|Glen|Heights|Hts|Causeway|Expressway|Expy|Freeway|Fwy|Route|Broadway"
    r"|Wharf|Quay|Park|Meadows?|Hollow|Landing|View|Vista|Manor)"
)
_UNIT = (
    r"(?:,?\s{0,2}(?:[Ll]evel|[Aa]pt|[Aa]partment|[Uu]nit|[Ss]uite|[Ss]te|[Rr]oom|[Rr]m|[Ff]loor|[Ff]l|[Bb]ldg"
    r"|[Bb]uilding|[Ll]ot|[Tt]rlr|[Ff]lat|[Ss]pace|[Pp]enthouse|APT|UNIT|STE|SUITE|#)"
    r"\.?(?: ?#)?[ :]?(?:[A-Z]?-?\d{1,5}-?[A-Z]?|[A-Z])\b){0,3}(?:,? \d{1,2}(?:st|nd|rd|th) [Ff]l(?:oor)?\b)?"
)
_TOWNS = rf"(?:{PLAIN_WORD} ){{0,3}}{PLAIN_WORD}"
_TAIL = rf"(?:,?\s{{1,3}}{_TOWNS},?\s{{1,3}}(?:(?:{_CODES})\b|{STATES})\.?(?:,?\s{{0,3}}\d{{5}}(?:-\d{{4}})?)?)?"
_DIRECTION = r"(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?"
_DOSE = re.compile(
    r"\b(?:mg|mcg|ml|g|kg|units?|tabs?|caps?|po|iv|bid|tid|qid|prn|days?|weeks?|wks?|months?|hours?"
    r"|hrs?|mins?|minutes|pcp|see|seen|saw|by|yo|year|years|x|per|every|times|with|and|to|for|cm|mm|lb"
    r"|lbs)\b"
)
_ADDRESS = (
    compile_rule(
        "LOCATION",
        0.95,
        rf"(?<![\w.])\d{{1,6}}(?:-\d{{1,4}})?(?: ?[A-Z]| 1/2)?,? {_DIRECTION}(?P<name>(?:(?:{CAPITALISED}"
        rf"|\d{{1,3}}(?:st|nd|rd|th)|[a-z]{{2,3}}) ){{1,4}}){_STREET}\b\.?"
        rf"(?: (?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\b\.?)?{_UNIT}{_TAIL}",
        lambda m: not m["name"].islower(),  # "2014 by Dr" has no name of a street
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.9,
        rf"(?<![\w.])\d{{1,6}} {_DIRECTION}(?:[\w'-]{{2,20}} ){{1,3}}(?:street|avenue|ave|road|drive|lane"
        rf"|boulevard|blvd|parkway|terrace|court)\b\.?{_UNIT}",
    ),
    compile_rule(
        "LOCATION",
        0.85,
        r"(?<![\w.])\d{1,6} (?:[a-z][a-z'-]{1,20} ){1,3}(?:st|rd|ave|dr|ln|blvd|ct|pl|pkwy|hwy|cir"
        r"|trl)\b\.?(?:,? (?:apt|unit|ste|suite|#) ?#?\w{1,5}\b)?",
        lambda m: not _DOSE.search(m[0]),
        case=True,
    ),
    compile_rule(
        "LOCATION", 0.85, r"(?<![\w.])[a-z][a-z'-]{2,20},? (?:" + _CODES.lower() + r") \d{5}(?:-\d{4})?(?!\d)"
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"(?<![\w.])\d{1,6} (?:[A-Z]{2,20} ){1,4}(?:ST|AVE|RD|DR|LN|BLVD|CT|CIR|PL|TER|WAY|PKWY|HWY"
        rf"|SQ|TRL|LOOP)\b\.?{_UNIT}",
        case=True,
    ),
    compile_rule(
        "LOCATION", 0.9, rf"(?<![\w.])\d{{1,6}} (?:Broadway|Park Avenue|Main|Avenue [A-Z])\b{_UNIT}{_TAIL}", case=True
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"\b(?:P\.? ?O\.?|Post Office|General Delivery) ?Box \d{1,7}\b|\b(?:RR|Rural Route|HC"
        r"|R\.R\.) ?#? ?\d{1,4},? (?:Box|box) \d{1,6}\b",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"(?:\b\d{1,5} )?\b(?:County Road|County Rd|CR|State Route|State Road|Highway|Hwy|Route|Rte|US"
        r"|I-|Interstate|FM|Farm Road)(?: |(?<=I-))\d{1,4}[A-Z]?\b(?: (?:North|South|East|West|[NSEW])\b)?",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        rf"\b(?:corner|intersection) of (?P<value>[\w']+(?: [A-Z][\w']+){{0,2}}(?: {_STREET}\b\.?)? and "
        r"[\w']+(?: [A-Z]\w+){0,2})",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.8,
        rf"\b(?:on|at|off|near|along|live[sd]? on) (?P<value>(?:{CAPITALISED} ){{1,3}}{_STREET}\b\.?)(?! (?:Jude"
        r"|John|Mary))",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"\b(?:Am|An der|An den|Im|In der|Auf dem|Auf der|Zum|Zur|Unter den|Hinter der|Alte|Alter|Neue"
        r"|Neuer) (?:[A-ZÄÖÜ][\w-]{2,30} ){1,2}\d{1,4} ?[a-z]?\b(?! (?:mg|ml|mm|cm))",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        r"\b(?:apt|unit|ste|suite|st|ave|rd|ct|dr|ln|blvd)\.? ?#?\w{0,5},? (?P<value>[a-z][a-z ]{2,20} \d{5})(?!\d)",
    ),
    # Streets of the Continent: the number comes last, or the kind of street first.
    compile_rule(
        "LOCATION",
        0.95,
        r"\b[A-ZÄÖÜ][\w'-]{1,30}(?:straße|strasse|str\.|weg|gasse|platz|allee|ring|damm|ufer|straat|laan"
        r"|plein|gracht|kade|dijk|singel|gatan|vägen|gade|vej|vegen|katu|steig|pfad|markt"
        r"|hof) ?\d{1,4}(?:(?: ?[a-zA-Z]|[ -]?(?:bis|ter|I{1,3}))\b)?",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.95,
        r"\b(?:[A-ZÄÖÜ][\w-]{1,30}(?:er|en|-)? ?)(?:Straße|Strasse|Str\.|Weg|Gasse|Platz|Allee|Ring"
        r"|Damm) ?\d{1,4} ?[a-z]?\b",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"(?:\b\d{1,4}(?: ?(?:bis|ter))?,? )?\b(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Vv]ia|[Vv]iale"
        r"|[Pp]iazza|[Cc]orso|[Cc]alle|[Aa]venida|[Pp]aseo|[Pp]laza|[Rr]ua|[Uu]l\.|[Uu]lica) (?:(?:de|du"
        r"|des|la|le|los|las|del|da|das|do|dos|d'|l'|della|di|san|santa|y) ?){0,3}"
        r"[A-ZÀ-Þ][\w'-]{1,30}(?: [A-ZÀ-Þ][\w'-]{1,30}){0,2},? (?:n[°º.] ?)?\d{1,4}\b|\b\d{1,4}(?: ?(?:bis"
        r"|ter))?,? (?:rue|avenue|boulevard|place|chemin|impasse|allée|quai) (?:(?:de|du|des|la|le|d'|l'"
        r"|l) ?){0,3}[A-ZÀ-Þ][\w'-]{1,30}(?: [A-ZÀ-Þ][\w'-]{1,30}){0,2}",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        r"(?:\b(?:Flat|House|Unit|Apartment|Cottage|Suite|Block) \d{1,4}[A-Z]?, |(?<=, )"
        rf"|(?m:^))(?:{PLAIN_WORD} ){{1,3}}(?:Street|Road|Avenue|Lane|Drive|Court|Close|Crescent|Terrace|Gardens"
        rf"|Boulevard|Mews|Square)(?:, (?:{PLAIN_WORD} ){{1,3}}(?:Street|Road|Avenue|Lane|Drive|Court|Close"
        rf"|Crescent|Terrace))?(?=,)(?:, {PLAIN_WORD})?",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        r"\b(?:[Aa]pt|[Aa]partment|APT|[Ss]uite|[Ff]lat)\.? ?#? ?(?:\d{1,5}[A-Z]?|[A-Z]-?\d{0,4})\b",
        case=True,
    ),
)
_TOWN = (
    compile_rule(
        "LOCATION",
        0.9,
        rf"(?<![\w.'-]){_TOWNS},? ?(?:(?:{_CODES})\b|{STATES})\.?,?\s{{1,3}}\d{{5}}(?:-\d{{4}})?(?!\d)",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        rf"(?<![\w.'-])(?P<town>(?:{PLAIN_WORD} ){{0,2}}{PLAIN_WORD}), ?(?:(?:{_CODES})\b(?![/'-])|{STATES}\b)",
        lambda m: _is_town(m),
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        r"(?<![\w.])(?:San|Santa|Los|Las|El|Fort|Ft\.|Port|Mount|Mt\.|Saint|St\.|Lake|Cape|Rancho|Palo"
        r"|Santo|Puerto|Corpus|Monte|Villa|Villa de|Bad|Den"
        r"|Rio) [A-Z][a-z]{2,20}(?: [A-Z][a-z]{2,20})?\b(?! (?:Score|Criteria))",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        rf"\b(?:(?:{CAPITALISED} ){{1,3}}(?:County|Parish|Borough|Township|Twp|Village|Precinct|Reservation|Island"
        r"|Valley|Beach|Heights|Springs|Falls|City|Hills)\b|(?:County|Co\.) [A-Z][a-z]{3,15}|(?:County"
        rf"|Borough|Town|City|Village|Township|Municipality) of {CAPITALISED_WORDS})",
        lambda m: not is_generic(m[0]),
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.8,
        r"\b(?:North|South|East|West|New|Upper|Lower|Great|Little) (?P<town>[A-Z][a-z]{3,20})\b",
        lambda m: _unknown_town(m["town"]) and m["town"] not in ("Hampshire", "Jersey", "Mexico", "Zealand"),
        case=True,
    ),
    compile_rule(
        "ZIP", 0.8, r"\bzip(?:[ _]?code)?\b[^\n]{0,60}\n[^\n]{0,120}?(?<![\w:.-])(?P<value>\d{5})(?![\w:-]|\.\d)"
    ),
    compile_rule("ZIP", 0.95, r"(?<![\w.-])\d{5}-\d{4}(?![\w-])"),
    compile_rule("ZIP", 0.9, rf"\b(?:(?:{_CODES})|{STATES})\.?,?[\s^]{{1,3}}(?P<value>\d{{5}})(?![\d-])", case=True),
    compile_rule(
        "ZIP",
        0.95,
        r"\b(?:zip(?:[ _]?code)?|postal[ _]?code|post[ _]?code"
        r"|plz)[\s:=#\"']{1,6}(?:is )?(?P<value>[A-Z]?\d[\dA-Z]{1,4}(?:[ -]\d[A-Z\d]{2,3})?)\b",
    ),
    compile_rule(
        "ZIP",
        0.9,
        r"(?<![\w.-])[A-Z]{1,2}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2}(?![\w-])",
        lambda m: " " in m[0] or len(m[0]) >= 6,
        case=True,
    ),
    compile_rule("ZIP", 0.9, r"(?<![\w.-])[ABCEGHJ-NPRSTVXY]\d[A-Z][ -]?\d[A-Z]\d(?![\w-])", case=True),
    compile_rule(
        "LOCATION",
        0.9,
        r"(?<![\w.,/-])(?:[A-Z]{1,2}-)?\d{4,5} (?!Mg|Units?|Steps"
        r"|Patients?)(?P<town>[A-ZÄÖÜ][a-zäöüßéèàô]{2,25}(?:[ -](?:am|an der|sur|la|le|de|sous|sous-|upon"
        r"|[A-ZÄÖÜ][a-zäöüß]{2,20})){0,3})(?=[\s,.;)|]|$)",
        lambda m: _unknown_town(m["town"]),
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"(?<![\w.-])\d{4} ?[A-Z]{2} (?=[A-Z][a-z])(?P<town>[A-Z][a-z]{2,25})",
        lambda m: _unknown_town(m["town"]),
        case=True,
    ),
)
_LIVES = compile_rule(
    "LOCATION",
    0.8,
    r"\b(?:(?:live[sd]?|living|reside[sd]?|residing|residence|resident|grew up|raised|born|settled"
    r"|homeless|staying|stays|works|working|worked|employed|retired|vacation(?:ed|ing)?"
    r"|home|house|apartment|condo|cabin|farm|shelter|practices|practice|located|outside|hometown"
    r"|downtown|clinic|office|hospital|trip) (?:just |mostly |currently |alone |now |back "
    r"|in and )?(?:in|at|near|outside|from|to|around|of|is)"
    r"|(?:moved|moving|relocated|relocating|came|emigrated|immigrated|transferred|travel(?:l?ed|l?ing"
    r"|s)?|flew|fly|drove|drives|commutes|visit(?:ed|ing|s)|hails|originally|returned|return|back"
    r"|flight|native|vacationing|trip|driving)(?: recently| here| back| home)? (?:to|from|in|of|around"
    r"|through)"
    r"|(?:visited|visiting|hometown|downtown|hometown of)) (?P<value>(?:" + PLAIN_WORD + r"(?:[ -]|(?=[^\w]|$))){1,3})",
    lambda m: _place_value(m["value"]),
    case=True,
)


def _is_town(match: re.Match[str]) -> bool:
    """ "Dayton, OH" is a town; "Assessment, MA" or "Smith, PA" (a degree) is decided by other rules."""
    words = [bare(w.strip(".'")) for w in match["town"].split()]
    lex = lexicon()
    if all(lex.is_allowed(w) or w in GENERIC for w in words):
        return False
    code = match[0][match.end("town") - match.start() :].strip(" ,.")
    return (
        code
        not in (
            "PA",
            "MA",
            "MD",
            "DO",
            "OR",
            "ME",
            "IN",
            "OK",
            "HI",
            "ID",
            "LA",
            "MS",
            "MT",
            "CT",
            "AL",
            "DE",
            "PR",
            "NP",
        )
        or not lex.is_word(words[-1])
        or words[-1] in lex.places
    )


def _unknown_town(town: str) -> bool:
    low = bare(town.split()[0].split("-")[0])
    lex = lexicon()
    return low in lex.places or not (lex.is_word(low) or lex.is_allowed(low) or lex.is_medical(low))


def _place_value(value: str) -> bool:
    words = [bare(w.strip(".,'")) for w in re.split(r"[ -]+", value) if w.strip(".,'-")]
    lex = lexicon()
    return bool(words) and not all(
        lex.is_allowed(w) or w in GENERIC or w in ("north", "south", "east", "west", "new") for w in words
    )


@cache
def _long_places() -> tuple[Rule, ...]:
    names = "|".join(re.escape(name) for name in lexicon().long_places)
    return (compile_rule("LOCATION", 0.85, rf"(?<!\w)(?:{names})(?!\w| (?:stage|staging|classification))", case=True),)


def find(view: str) -> Iterator[Finding]:
    """Places in `view`."""
    yield from scan(_ADDRESS, view)
    yield from scan(_TOWN, view)
    yield from scan(_long_places(), view)
    yield from places_abroad.find(view)
    for found in scan((_LIVES,), view):
        value = view[found.start : found.end].rstrip(" -.")
        yield found._replace(end=found.start + len(value))
