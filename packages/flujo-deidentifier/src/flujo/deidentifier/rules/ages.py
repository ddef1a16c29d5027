"""Ages over 89, and birth years that reveal one (45 CFR 164.514(b)(2)(i)(C)); ages up to 89 stay.

The years in question depend on today, so they are given by the caller, once per `Deidentifier`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules.pattern import compile_rule, scan

__all__ = ["OLDEST_KEPT", "find"]

OLDEST_KEPT = 89
_OLD = r"(?:9\d|1[0-2]\d)"
_DIGIT = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_OLD_WORD = (
    rf"(?:ninety(?:[ -]{_DIGIT})?|(?:one|a) hundred(?:(?: and|-and)?[ -](?:{_DIGIT}|ten|eleven|twelve"
    r"|thirteen|fourteen|fifteen))?)"
)
_AGE = rf"(?:{_OLD}|{_OLD_WORD})"
_RULES = (
    compile_rule(
        "AGE_OVER_89",
        0.95,
        rf"(?<![\d.,/])(?P<value>{_AGE})[ -]{{0,2}}(?:years?|yrs?|yo\b|y[./]? ?o\b|y/o|y\b|jahre|ans\b"
        r"|a[ñn]os)(?![- ](?:ago|later|prior|before|earlier|history|of (?:smoking|experience|marriage)))",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.95,
        r"\b(?:age[ds]?|aged|turn(?:s|ed|ing)|over the age of)\b(?: of| at| is| now| was| about| almost"
        rf"| nearly|[\s:=#-]){{0,3}}(?P<value>{_AGE})(?![\d%/.]\d|\w)",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.9,
        rf"(?<![\d.,/-])(?P<value>{_OLD})(?:yo[- ]?|/)?(?:[MF]|[- ]?(?:male|female|man|woman|lady"
        r"|gentleman))\b(?! ?[.-]?\d)",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.9,
        r"\bin (?:his|her|their|the patient's|my) (?:early |mid[ -]?|late )?(?P<value>nineties|90'?s" r"|hundreds)\b",
    ),
    compile_rule("AGE_OVER_89", 0.9, r"\b(?:nonagenarian|centenarian|supercentenarian)s?\b"),
    compile_rule(
        "AGE_OVER_89",
        0.85,
        r"\b(?:is|was|being|at|patient|pt|mother|father|grandmother|grandfather|wife|husband|died at"
        rf"|lived to|to be),? (?:now |already |almost |nearly )?(?P<value>{_AGE})(?=[,.;)]? (?:and (?:lives"
        r"|frail|was|is|has|still)|years|when|lives|today|this|next|on (?:his|her)))",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.9,
        r"\b(?:died|passed(?: away)?|deceased|dead|lived|alive|living|well|diagnosed|still (?:alive"
        r"|driving|working)|survived|made it)(?: at| to| until| aged?| past| at the age of"
        rf"| at age){{1,2}} (?P<value>{_AGE})(?![\d%/.:]\d|\w| ?%)",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.85,
        r"\b(?:is|was|he's|she's|turned|turning|being|they're|i'm|am) (?:almost |nearly |about "
        rf"|now )?(?P<value>{_OLD_WORD})\b(?! (?:percent|days?|weeks?|months?|minutes?|hours?|degrees"
        r"|milligrams?|mg|ml|times|dollars|miles|pounds|feet|over|to))",
    ),
    compile_rule(
        "AGE_OVER_89",
        0.85,
        r"[A-Z][a-z'-]{1,25}\"?\)?, \(?(?P<value>9\d|1[01]\d)(?=[,;)]|\. [A-Z]| (?:with|who|has|is|was"
        r"|presents|and))",
        case=True,
    ),
    compile_rule(
        "AGE_OVER_89",
        0.85,
        r"\b(?:mother|father|grandmother|grandfather|grandparent|wife|husband|sister|brother|aunt|uncle|mum|mom"
        r"|dad|widow(?:er)?"
        rf"|alive|oma|opa|mutter|vater|m[èe]re|p[èe]re|moeder|vader|m[ãa]e|pai|madre|padre|abuel[ao])\b[^.;\n]{{0,60}},"
        rf" (?:now |aged? )?(?P<value>{_OLD})(?=[,.;)] ?(?:[A-Z\n]|[a-z]{{3,}}|$))",
    ),
    compile_rule("AGE_OVER_89", 0.9, rf"(?P<value>(?<![\d.,/-]){_AGE}(?:st|nd|rd|th)?) birthday\b"),
    compile_rule(
        "AGE_OVER_89",
        0.85,
        r"\b(?:mother|father|grandmother|grandfather|wife|husband|sister|brother|patient|aunt"
        rf"|uncle)\b[^.\n]{{0,24}}\((?P<value>{_OLD})\)",
    ),
)
_BIRTH_YEAR = re.compile(
    r"\b(?:born(?: in)?|birth ?year|year of birth|yob|dob|d\.o\.b\.?|date of birth"
    r"|b\.)[\s:.=,-]{0,4}(?P<value>1[89]\d\d)(?![\d/-])",
    re.IGNORECASE,
)


def find(view: str, this_year: int) -> Iterator[Finding]:
    """Ages over 89 in `view`, and birth years more than 89 years before `this_year`."""
    yield from scan(_RULES, view)
    for match in _BIRTH_YEAR.finditer(view):
        if this_year - int(match["value"]) > OLDEST_KEPT:
            yield Finding(match.start("value"), match.end("value"), "AGE_OVER_89", 0.9)
