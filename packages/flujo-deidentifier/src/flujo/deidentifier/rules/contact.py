"""Telephone, fax, e-mail, web and network addresses, account handles and secrets."""

from __future__ import annotations

import ipaddress
import re

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules.pattern import NUMBER, compile_rule, digits, needing, scan

__all__ = ["RULES", "find"]

_UNIT = r"(?!\s?(?:mg|mcg|g|kg|ml|l|units?|iu|cells|kcal|cal|mm|cm|steps|feet|ft|bpm|%))"
_EXT = r"(?:[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]{0,2}\d{1,6})?"
_TLD = (
    r"(?:com|org|net|edu|gov|mil|int|info|biz|health|clinic|hospital|care|doctor|dental|pharmacy"
    r"|online|site|app|dev|io|ai|eu|de|fr|nl|ch|at|es"
    r"|be|dk|fi|no|se|pl|cz|pt|ie|ca|mx|br|jp|cn|kr|ru|za|nz|au|uk|us|local|localdomain|internal"
    r"|intranet|lan|corp|home|test|example|invalid)"
)
_ABROAD = r"\d{1,3}(?:[ .()/-]{0,3}\d{1,5}){2,7}(?!\d)" + _EXT
_DIGIT_WORD = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple|hundred)"
_AMONG_DIGIT_WORDS = rf"[ ,.-]{_DIGIT_WORD}[ ,.-]{{1,3}}{_DIGIT_WORD}"


def _is_ipv6(match: re.Match[str]) -> bool:
    text = match[0].split("%")[0]
    if not any(c.isalnum() for c in text):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _seven_digits(match: re.Match[str]) -> bool:
    return digits(match["value"] if "value" in match.re.groupindex else match[0]) >= 7


_MAIL = (
    compile_rule(
        "EMAIL",
        1.0,
        r"[\w.!#$%&'*+/=?^`{|}~-]{1,128}@(?:\[[\da-f.:]{3,45}\]|[a-z\d](?:[\w-]{0,62})(?:\.[\w-]{1,63}){0,8})",
        words=("@",),
    ),
)
_SPELLED_MAIL = (
    compile_rule(
        "EMAIL",
        0.9,
        r"(?<![\w.+-])[\w.+-]{1,64}\s{0,2}[(\[{<]\s?at\s?[)\]}>]\s{0,2}[\w-]{1,63}"
        r"(?:\s{0,2}(?:[(\[{<]\s?dot\s?[)\]}>]|\.|\bdot\b)\s{0,2}[\w-]{1,63}){0,5}",
        needs=r"[(\[{<]\s?at",
    ),
    compile_rule(
        "EMAIL",
        0.9,
        r"(?<![\w.+-])(?:[\w.+-]{1,64} (?:dot|underscore|dash"
        rf"|period) ){{0,3}}[\w.+-]{{1,64}} at [\w-]{{1,63}}(?: dot [\w-]{{1,63}}){{0,3}} dot {_TLD}\b",
        words=(" dot ",),
    ),
    compile_rule(
        "EMAIL",
        0.9,
        rf"(?<![\w.+-])[\w.+-]{{1,64}} at (?:[\w-]{{1,63}}\.){{1,4}}{_TLD}\b(?!\.\w)",
        needs=(r"\.\w", r" at [\w-]+\."),
    ),
)
_WEB = (
    compile_rule(
        "URL", 1.0, r"\b(?:https?|ftps?|sftp|file|s3|ssh|wss?)://[^\s<>\"']{1,2000}(?<![.,;:!?)\]])", words=("://",)
    ),
    compile_rule("URL", 0.9, r"(?<![\w.@-])www\.[^\s<>\"']{2,500}(?<![.,;:!?)\]])", words=("www.",)),
    compile_rule(
        "URL",
        0.7,
        rf"(?<![\w.@-])[a-z\d][a-z\d-]{{1,62}}(?:\.[a-z\d-]{{1,63}}){{0,5}}\.{_TLD}(?![\w-]"
        r"|\.\w)(?:/[^\s<>\"']{0,500}(?<![.,;:!?)\]]))?",
        needs=r"\.[a-z]",
    ),
    compile_rule("ID", 0.7, r"(?<![\w@.])@[a-z_][\w.]{1,30}\w", words=("@",)),
)
_NETWORK = (
    compile_rule(
        "IP_ADDRESS",
        0.95,
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d|\.\d)",
        needs=(r"\.\d(?<=\d\.\d)", r"\.\d{1,3}\.\d"),
        starts=NUMBER,
    ),
    compile_rule(
        "IP_ADDRESS",
        0.95,
        r"(?<![\w:])(?:[\da-f]{0,4}:){2,7}[\da-f]{0,4}(?:%\w{1,15})?(?![\w:])",
        _is_ipv6,
        needs=r":[\da-f]{0,4}:",
    ),
    compile_rule(
        "DEVICE_ID", 0.95, r"(?<![\w:-])[\da-f]{2}(?:[:-][\da-f]{2}){5}(?![\w:-])", needs=r"[:-][\da-f]{2}[:-]"
    ),
    compile_rule(
        "ID", 0.95, r"(?<![\w-])[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}(?![\w-])", needs=r"[\da-f]{8}-[\da-f]{4}-"
    ),
)
_PHONE = needing(
    r"\d",
    (
        compile_rule(
            "PHONE",
            0.9,
            r"(?<![\w.])(?<!\d[-/])(?:\+?1[ .-]{0,2})?(?:\(\s?\d{3}\s?\)[ .-]{0,3}|\d{3} ?[./-] ?"
            r"|\d{3} )\d{3} ?[ .-] ?\d{4}(?!\d)" + _EXT,
            starts=NUMBER,
            is_long=True,
        ),
        compile_rule(
            "PHONE", 0.7, r"(?<![\w.-])[2-9]\d\d[-.]\d{4}(?![\d-])" + _UNIT + _EXT, starts=NUMBER, is_long=True
        ),
        compile_rule("PHONE", 0.9, r"(?<![\w+])\+" + _ABROAD, _seven_digits, words=("+",), starts=r"\+\d"),
        compile_rule("PHONE", 0.9, r"(?<![\w+])00" + _ABROAD, _seven_digits, words=("00",), starts=r"00(?<!\d00)\d"),
        compile_rule(
            "PHONE",
            0.8,
            r"(?<![\w.-])(?!0\d/\d\d\b)\(?0\d{1,5}\)?[ /-]{1,2}\d{2,8}(?:[ -]\d{2,8}){0,4}(?![\d-])",
            _seven_digits,
            starts=r"\(?0(?<!\d\d)\d{1,5}\)?[ /-]{1,2}\d\d",
            is_long=True,
        ),
        compile_rule("PHONE", 0.8, r"(?<![\w.-])0\d(?:[ .]\d{2}){4}(?!\d)", starts=r"0(?<!\d\d)\d[ .]", is_long=True),
        compile_rule(
            "PHONE",
            0.8,
            r"(?<![\w.-])(?:1[ .-])?8\d\d[ .-](?=[A-Z\d-]{0,12}[A-Z])[A-Z\d]{3,4}(?:-?[A-Z\d]{2,8})" r"{1,2}(?![\w-])",
            case=True,
            needs=(r"\d", r"8\d\d[ .-]"),
            starts=r"[18](?<!\d\d)",
        ),
        compile_rule(
            "PHONE",
            0.8,
            rf"\b{_DIGIT_WORD}(?:[ ,.-]{{1,3}}{_DIGIT_WORD}){{6,14}}\b",
            needs=_AMONG_DIGIT_WORDS,
            heads="zer oh one two thr fou fiv six sev eig nin dou tri hun",
        ),
        compile_rule(
            "PHONE",
            0.85,
            r"\b(?:tele?(?:phone|ph)?|phone|cell(?:ular|phone)?|mobile|mob|handy|pager|beeper|page|bleep"
            r"|ext(?:ension|n)?|voicemail|whatsapp|hotline|landline)\b"
            r"(?:\s{0,2}(?:number|num|no|nr|#|is|at|on|home|work|day|evening"
            r"|contact)\b\.?){0,3}(?:\s?\([a-z ]{1,12}\))?[\s.:#=-]{0,4}"
            r"(?P<value>[+(]{0,2}\d[\d ()./-]{1,22}\d)(?![\d%])" + _UNIT,
            lambda m: digits(m["value"]) >= 4 or m[0][:3].lower() == "ext",
            words=(
                *("tel", "phone", "cell", "mob", "handy", "page", "beeper", "bleep", "ext", "voicemail", "whatsapp"),
                *("hotline", "landline"),
            ),
            heads="tel pho cel mob han pag bee ble ext voi wha hot lan",
        ),
        compile_rule(
            "PHONE",
            0.8,
            r"\b(?:rings?|rang|calls?|called|dial|text(?:s|ed)?|reach(?:ed|able)?|callback|contact)"
            r"(?: (?:him|her|us|them|me|back|on|at|via|to)){0,3}:? (?P<value>\d{3}[ .-]\d{4})(?![\d-])",
            is_long=True,
            words=("ring", "rang", "call", "dial", "text", "reach", "contact"),
        ),
        compile_rule(
            "PHONE",
            0.7,
            r"(?<![\w.-])(?:x|ext\.?)\s?(?P<value>\d{3,6}|\d-\d{4})(?![\w.-]\d)",
            needs=(r"\d", r"x(?:(?<![\w.-]x)|(?<=ex)t\.?)\s?\d"),
        ),
        compile_rule(
            "PHONE",
            0.8,
            r"\b(?:ph|tel|t|m|c|h|w|p)\s?[.:]\s{0,2}(?P<value>[+(]{0,2}\d[\d ()./-]{5,20}\d)(?!\d)",
            _seven_digits,
            needs=(r"\d", r"[.:](?<=[hltmcwp\s].)\s{0,2}[+(]{0,2}\d[\d ()./-]{5}"),
            is_long=True,
        ),
        compile_rule(
            "FAX",
            0.95,
            r"\b(?:fax(?:ed)?|facsimile|telefax|f)\b(?:\s{0,2}(?:number|num|no|nr|#|is|at"
            r"|to)\b\.?){0,3}[\s.:#=-]{0,4}(?P<value>[+(]{0,2}\d[\d ()./-]{5,22}\d)(?!\d)",
            _seven_digits,
            needs=(r"\d", r"f(?:ax|acs|(?<!\wf)\W)[^\d]{0,48}\d[\d ()./-]{5}"),
            is_long=True,
        ),
    ),
)
_TOKENS = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-", "hf_", "npm_", "pypi-"),
)
_LONG_TAIL = r"[_-][\w-]{16}"
_SECRET = (
    compile_rule("SECRET", 1.0, r"\b(?:sk|pk|rk)[-_](?:[a-z]{2,10}[-_]){0,2}[A-Za-z\d_-]{16,200}", needs=_LONG_TAIL),
    compile_rule("SECRET", 1.0, r"\b(?:AKIA|ASIA)[A-Z\d]{16}\b", case=True, words=("akia", "asia")),
    compile_rule("SECRET", 1.0, rf"\b(?:{'|'.join(_TOKENS)})[\w-]{{16,250}}", needs=_LONG_TAIL),
    compile_rule("SECRET", 1.0, r"\beyJ[\w-]{8,4000}\.[\w-]{8,4000}(?:\.[\w-]{0,2000})?", case=True, words=("eyj",)),
    compile_rule(
        "SECRET",
        1.0,
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,8000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?",
        case=True,
        words=("-----begin",),
    ),
    compile_rule(
        "SECRET",
        0.9,
        r"\b(?:password|passwd|pwd|passcode|api[ _-]?key|secret|access[ _-]?token|bearer)\b\s{0,2}(?:is\s"
        r"|[:=])\s{0,2}[\"']?(?P<value>[^\s\"',;]{4,200})",
        words=("passw", "pwd", "passcode", "key", "secret", "token", "bearer"),
    ),
)


RULES = (*_MAIL, *_SPELLED_MAIL, *_WEB, *_NETWORK, *_PHONE, *_SECRET)


def find(view: str) -> list[Finding]:
    """Contact details in `view`."""
    return scan(RULES, view)
