"""Addresses beyond the American form: Australia, Britain, Canada, house names, coordinates, dictated places."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare, lexicon
from flujo.deidentifier.rules.pattern import compile_rule, scan
from flujo.deidentifier.rules.vocabulary import GENERIC, NOT_NAMES

__all__ = ["find"]

_CAPITAL = r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w'-]{0,30}"
_WORDS = rf"(?:{_CAPITAL} ){{0,3}}{_CAPITAL}"
# Kinds of streets beside the frequent ones of places.py: those of the postal services of the US, UK and Australia.
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd|Court|Ct|Circle|Place|Pl|Terrace|Way|Square"
    r"|Close|Row|Crescent|Mews|Walk|Grove|Gardens|Hill|Parade|Pde|Rise|Spur|Slip|Esplanade|Esp|Circuit|Cct|Chase"
    r"|Croft|Dell|Dene|Drove|End|Fold|Gate|Garth|Holt|Knoll|Lea|Mead|Mount|Orchard|Paddock|Pass|Promenade|Quadrant|Reach|Retreat"
    r"|Strand|Tor|Track|Vale|Wynd|Yard|Bluff|Bottom|Brae|Branch|Bridge|Brook|Corner|Creek|Dale|Estates?|Ferry|Fields?"
    r"|Flats?|Ford|Forest|Fork|Haven|Island|Junction|Keys?|Lake|Mall|Mill|Neck|Oval|Overlook|Plains?|Port|Prairie"
    r"|Rapids|River|Shoals?|Shores?|Springs?|Station|Stream|Summit|Trace|Tunnel|Union|Valley|Viaduct|Villas?|Wells?|Wharf|Quay"
    r"|Concourse|Embankment|Broadway|Lodge|Common|Green|Park|Heath|Warren|Glade|Nook|Arcade|Approach|Bypass|Link|Pike)"
)
_HOUSE = (
    r"(?:Cottage|House|Lodge|Farm|Farmhouse|Barn|Villa|Hall|Court|Mill|Manor|Grange|Rectory|Vicarage|Bungalow"
    r"|Croft|Towers?|Mansions?|Buildings?|Apartments|Heights|Chambers)"
)
_ROOM = r"(?:Suite|Unit|Flat|Level|Apt|Apartment|Floor|Room|Shop|Office|Building|Block|Lot)\.? \w{1,5}"
_INSIDE = rf"(?:{_ROOM},? )"
_AU = r"(?:QLD|NSW|VIC|TAS|ACT|NT|SA|WA|Qld|Vic|Tas)"
_TOWN_END = (
    r"(?:ville|ton|burg|burgh|bury|boro|borough|water|field|ford|port|wood|dale|shire|ham|mouth|haven|brook"
    r"|chester|cester|stead|worth|minster|polis|town|berg|bridge|bourne|combe|thorpe|wick|hurst|hausen|heim|dorf|stadt|furt)"
)
_STATE_WORDS = (
    r"(?:alabama|alaska|arizona|arkansas|california|colorado|connecticut|delaware|florida|georgia|hawaii|idaho|illinois"
    r"|indiana|iowa|kansas|kentucky|louisiana|maine|maryland|massachusetts|michigan|minnesota|mississippi"
    r"|missouri|montana|nebraska|nevada|new (?:hampshire|jersey|mexico|york)|(?:north|south) (?:carolina"
    r"|dakota)|ohio|oklahoma|oregon"
    r"|pennsylvania|rhode island|tennessee|texas|utah|vermont|(?:west )?virginia|washington|wisconsin|wyoming)"
)


def _unknown(word: str) -> bool:
    low, lex = bare(word), lexicon()
    return (
        not (lex.is_word(low) or lex.is_allowed(low) or lex.is_medical(low)) or low in lex.places or low in lex.proper
    )


def _street(match: re.Match[str]) -> bool:
    """Whether the words between number and kind of street are a name, not "2 Left Side" or "3 Day Retreat"."""
    words = [bare(w) for w in match["name"].split()]
    lex = lexicon()
    return not all(
        w in NOT_NAMES or w in GENERIC or lex.is_allowed(w) or lex.is_medical(w) or w == "day" for w in words
    )


def _particular(match: re.Match[str]) -> bool:
    """Whether "in X Y" is a place: no word of it is a service, a medicine or a heading."""
    lex = lexicon()
    words = [bare(w) for w in match["value"].split()]
    return not any(w in NOT_NAMES or w in GENERIC or lex.is_allowed(w) or lex.is_medical(w) for w in words)


_RULES = (
    compile_rule(
        "LOCATION",
        0.9,
        rf"(?<![\w./]){_INSIDE}?\d{{1,5}}(?:[-/]\d{{1,5}})?[A-Za-z]?,? (?P<name>(?:{_CAPITAL} ){{1,3}}){_STREET}\b"
        rf"(?:, {_ROOM}\b)?",
        _street,
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.85,
        rf"(?<![\w'-])(?:{_CAPITAL} ){{1,2}}{_HOUSE}, (?:\d{{1,4}}[A-Za-z]?,? )?(?:{_CAPITAL} ){{1,3}}{_STREET}\b",
        case=True,
    ),
    compile_rule("LOCATION", 0.9, rf"(?<![\w'-]){_WORDS},? {_AU} \d{{4}}(?!\d)", case=True),
    compile_rule(
        "LOCATION", 0.85, rf"(?<![\w'-])(?:{_CAPITAL} )?[A-Z][a-z]{{2,20}},? (?:QLD|NSW|TAS|Qld)\b", case=True
    ),
    compile_rule(
        "LOCATION",
        0.8,
        r"(?<![\w'-])(?P<town>[A-Z][a-z]{2,20}) (?:BC|AB|QC|MB|SK|NS|NJ|NY|CA|TX|FL|IL|MI|WI|VA|WA|KY|TN|NC|SC|GA"
        r"|NM|AZ)(?![\w-])",
        lambda m: _unknown(m["town"]),
        case=True,
    ),
    compile_rule(
        "LOCATION", 0.9, r"(?<![\w.-])-?\d{1,2}\.\d{3,8}°?(?: ?[NS])?, ?-?\d{1,3}\.\d{3,8}°?(?: ?[EW]\b)?(?!\d|\.\d)"
    ),
    compile_rule(
        "LOCATION",
        0.9,
        r"\b(?:US|SR|CR|I|Hwy|Highway|Route|Rte|Interstate)[- ]\d{1,4}[A-Z]? (?:at|and|near|&|@) "
        rf"(?:{_CAPITAL} ){{1,3}}{_STREET}\b",
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.75,
        r"(?<=[a-z] )[Ii]n (?P<value>[A-Z][a-z'-]{2,20} [A-Z][a-z'-]{2,20})(?=[.,;)]| (?:and|on|with|since"
        r"|for)\b)",
        _particular,
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.8,
        rf"\b(?:from|in|near|at|of|to) (?P<value>[a-z]{{3,20}}(?: [a-z]{{3,20}})?) {_STATE_WORDS}\b",
        lambda m: not set(m["value"].split()) & NOT_NAMES,
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.8,
        r"(?<![\w'-])(?P<name>[a-z]{4,20}) (?:street|avenue|boulevard|road|lane|drive|parkway|terrace)\b",
        lambda m: _unknown(m["name"]),
        case=True,
    ),
    compile_rule(
        "LOCATION",
        0.75,
        rf"\b(?:in|from|near|to|of|at) (?P<value>[a-z]{{2,16}}{_TOWN_END})(?![\w'-])",
        lambda m: _unknown(m["value"]),
        case=True,
    ),
)


def find(view: str) -> Iterator[Finding]:
    """Places in `view` that are written as outside the United States, or dictated in small letters."""
    yield from scan(_RULES, view)
