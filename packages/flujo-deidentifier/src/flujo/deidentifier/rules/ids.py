"""Numbers of persons, plans, accounts, licences, vehicles, devices and records.

Most have no shape of their own: a word before them says what they are. A word that is common in notes ("unit",
"plan", "order") counts only with "number", "#", "ID" or a colon between it and the value. Whatever is left and looks
like no measurement (seven digits and more, letters mixed with digits) is an ID as well.
"""

from __future__ import annotations

import re

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules.pattern import NUMBER, compile_rule, digits, luhn, needing, scan

__all__ = ["RULES", "find"]

_LINK = r"(?:number|num|nos?|nbr|nr|code|id(?:entifier|entification)?|#)"
_LEADERS = r"(?:[ \t]{0,3}(?:\.[ .]{1,60}|[ \t]{2,24}(?=[:=\w])))?"  # "Policy ........ ", "FILE      "
_GAP = _LEADERS + r"[\"'*_]{0,3}\s{0,3}(?:[:=#.-]|is\b|was\b|\|)?\s{0,3}[\"'*_(]{0,3}"
_OPTIONAL = rf"(?:[ _-]{{0,2}}{_LINK}(?![a-z])\.?){{0,3}}{_GAP}"
_REQUIRED = (
    rf"(?:(?:[ _-]{{0,2}}{_LINK}(?![a-z])\.?){{1,3}}{_GAP}"
    r"|[\"'*_]{0,3}\s{0,24}[:=#]\s{0,3}[\"'*_(]{0,3}|[ \t]{0,2}\.[ .]{2,60}|[ \t]{2,24})"
)
# Groups of capitals and digits ("QX-118 204", "QX 1182 04 5"); a group before a word in small letters is its number.
_GROUPS = (
    r"(?-i:(?:[A-Z]{1,6}[ -])?(?=[A-Z]{0,4}\d)[A-Z\d]{1,12}(?:[./-][A-Z\d]{1,10}){0,4}"
    r"(?: (?=[A-Z]{0,3}\d)[A-Z\d]{1,9}(?![\w/:]|\.\d| ?[a-z%])){1,6})"
)
_VALUE = (
    rf"(?P<value>{_GROUPS}|"
    r"(?:[A-Z]{1,4} (?=\d))?(?=[A-Z\d./_-]{0,24}\d)(?:(?:[A-Z]{1,3}-?)?\d{1,5}(?: \d{2,5})"
    r"{1,5}(?![\d/-])|[A-Z\d](?:[A-Z\d]|[./_-](?=[A-Z\d])){1,40}))(?!\w)"
)

# entity, cues that are enough by themselves, cues that need a link
_CUES: tuple[tuple[str, str, str], ...] = (
    (
        "MRN",
        r"mrns?|m\.r\.n\.?|mr ?#|ur(?: no)?|hosp(?:ital)? no\.?|prontu[áa]rio|krankenakte|aktenzeichen|fallnummer"
        r"|patientennummer|pati[ëe]ntnummer|dossiernummer|ipp|nip|historia cl[íi]nica|nhc|cartella"
        r"|med(?:ical)?[ ._-]?rec(?:ord)?s?|umrn|urn|nhs|nhi|chi|empi|csn|har"
        r"|fin(?= ?[#:])|pat(?:ient)?[ _-]?id|pt[ _-]?id|pid",
        r"mr|chart|patient|pt|hospital|hosp|unit|encounter|visit|admission|episode|registration|case|file"
        r"|folder|health record|ehr|emr",
    ),
    (
        "HEALTH_PLAN_ID",
        r"hicn|mbi|conv[êe]nio|carteirinha|versichertennummer|versichertennr|kvnr|krankenkasse|mutuelle"
        r"|polis(?:nummer)?|p[óo]liza|ihi|phn|ohip|medicaid|medicare|subscriber|beneficiary"
        r"|prior auth(?:orization)?|pre-?auth(?:orization)?|policy",
        r"member(?:ship)?|group|grp|plan|insur(?:ance|ed)|ins|health plan|payer|payor|claim|clm"
        r"|auth(?:orization)?|referral|prescription|rx|benefits?|carrier|coverage",
    ),
    (
        "ACCOUNT",
        r"acct|a/c|account|routing|iban|sort code|swift|invoice|tax id|tin|ein",
        r"bank|bill(?:ing)?|guarantor|payment|checking|savings|statement|receipt|transaction|customer"
        r"|client|ledger|deposit|wire|cvv|cvc|card",
    ),
    (
        "LICENSE",
        r"dea|npi|provider (?:no|number)|prescriber (?:no|number)|ahpra|crm|crf|bsnr|lanr|big(?= ?(?:nr|no|:))"
        r"|rpps|adeli|gphc|hcpc|passport|(?:driver'?s? )?licen[cs]es?|i-94|a-number|alien (?:registration|number)|dl ?#"
        r"|gmc|nmc|upin|state licen[cs]e|medical licen[cs]e|visa ?#",
        r"lic|certificate|certification|cert|permit|credential|dl|board|visa|green card"
        r"|alien registration|birth certificate",
    ),
    (
        "VEHICLE_ID",
        r"vin|tail(?: no| number)?|hull|rego|kennzeichen|kenteken|matr[íi]cula|immatriculation|placa"
        r"|(?:licen[cs]e|number|vehicle|car|truck|motorcycle|registration) (?:plates?|tags?)"
        r"|plates?(?= ?[:#]| (?:number|no))",
        r"plates?|vehicle|tag",
    ),
    (
        "DEVICE_ID",
        r"s/n|serial|imei|imsi|meid|udi|iccid|device id|mac address|(?:gtin|sn)(?= ?[:#])",
        r"device|implant|pacemaker|icd|generator|lead|pump|valve|stent|prosthesis|model|ref|sensor|monitor"
        r"|machine|asset|equipment|sn",
    ),
    (
        "SSN",
        r"cpf|rut|curp|rfc|dni|nif|nie(?= ?[:#\d])|bsn|pesel|personnummer|cpr|codice fiscale|(?:no"
        r"|num[ée]ro de )?s[ée]curit[ée] sociale|nir"
        r"|svnr|sozialversicherungsnummer|rentenversicherungsnummer|steuer-?id|pps(?:n)?|ahv|avs|hkid|nric"
        r"|aadhaar|cccd|cmnd|tfn|kt\.?(?= ?\d)"
        r"|national insurance|ni(?= ?(?:no|number|#|:))",
        r"sin|national (?:id|identity|number)|identity|tax|social insurance|id card",
    ),
    (
        "BIOMETRIC_ID",
        r"biometric|fingerprint|voice ?print|face ?id|retina(?:l)? scan|iris scan|palm ?print|dna profile",
        r"template|scan",
    ),
    (
        "ID",
        r"key ?safe|(?:door|gate|entry|access|alarm|keypad|key|lock) code|rack|freezer|locker|flight|accession"
        r"|acc ?#|acn|specimen|requisition|confirmation|tracking|badge|student id|employee id"
        r"|barcode|dictation|national id|tax file|dossier"
        r"|docket|user ?(?:name|id)|login|transcription",
        r"order|sample|study|report|document|doc|reference|ticket|employee|student|staff|slide|block|job"
        r"|record|lab|req|event|incident|subject|participant|trial"
        r"|enrollment|randomi[sz]ation|req(?:uest)?|session|military|service|veteran|prisoner|inmate|court"
        r"|police|cad|run|trip|unit|donor|cassette|image|exam|id",
    ),
)


def _value_is_id(match: re.Match[str]) -> bool:
    value = match["value"]
    return len(value) >= 4 and digits(value) >= 3 and not _CLINICAL.fullmatch(value)


def _value_is_cued_id(match: re.Match[str]) -> bool:
    value = match["value"]
    return len(value) >= 3 and digits(value) >= 2 and not _CLINICAL.fullmatch(value)


def _value_is_long(match: re.Match[str]) -> bool:
    return digits(match["value"]) >= 6


# Values that follow such words without being anybody's number: dates are found elsewhere, doses and codes may stay.
_CLINICAL = re.compile(
    r"\d{1,4}(?:\.\d+)?(?:mg|mcg|g|kg|ml|cm|mm|units?|h|hrs?|days?|yo|am|pm|th|st|nd|rd)|(?:19|20)\d\d"
    r"|\d{1,3}/\d{1,3}|\d\.\d{1,2}",
    re.I,
)

# A cheap look ahead: no digit, no number.
_DIGIT_NEAR = r"[^\d]{0,90}\d"


def _start(cues: str) -> str:
    return rf"(?<![a-z\d])(?:{cues})"


# For the types that are looked for in streams (STRUCTURED): pieces of the cues above, as they are written in a text;
# the heads of their words; what the weak ones need; their heads.
_PIECES = {
    "SSN": (
        (
            *("cpf", "rut", "curp", "rfc", "dni", "nif", "nie", "bsn", "pesel", "personnummer", "cpr", "fiscale"),
            *(
                "sociale",
                "nir",
                "svnr",
                "versicherungsnummer",
                "steuer",
                "pps",
                "ahv",
                "avs",
                "hkid",
                "nric",
                "aadhaar",
            ),
            *("cccd", "cmnd", "tfn", "kt", "national insurance", "ni ", "ni#", "ni:", "nino", "ninumber"),
        ),
        "cpf rut cur rfc dni nif nie bsn pes per cpr cod soc nir svn soz ren ste pps ahv avs hki nri aad ccc cmn tfn kt"
        " nat ni nin",
        (r"\d", r"(?:sin(?:[^a-z]|[nci])|national |identity|tax|social insurance|id card)[^\d]{0,120}\d"),
        "sin nat ide tax soc id",
    )
}
_CUED = tuple(
    rule
    for entity, strong, weak in _CUES
    for words, heads, needs, weak_heads in [_PIECES.get(entity, ((), "", (), ""))]
    for rule in (
        compile_rule(
            entity,
            0.95,
            rf"{_start(strong)}(?!(?!{_LINK})[a-z]){_OPTIONAL}{_VALUE}",
            _value_is_cued_id,
            cue=_start(strong) + _DIGIT_NEAR,
            words=words,
            heads=heads,
        ),
        compile_rule(
            entity,
            0.9,
            rf"{_start(weak)}{_REQUIRED}{_VALUE}",
            _value_is_id,
            cue=_start(weak) + _DIGIT_NEAR,
            needs=needs,
            heads=weak_heads,
        ),
        compile_rule(
            entity,
            0.8,
            rf"{_start(weak)} {_VALUE}",
            _value_is_long,
            cue=_start(weak) + " ",
            needs=needs,
            heads=weak_heads,
        ),
    )
)


def _mixed(match: re.Match[str]) -> bool:
    if re.fullmatch(r"G\d{1,2}P\d{1,4}", match[0]):  # pregnancies and births
        return False
    count = digits(match[0])
    return count >= 5 or (count >= 4 and len(match[0]) >= 7)


def _not_round(match: re.Match[str]) -> bool:
    return not match[0].endswith("000") or len(match[0]) > 8


def _many_digits(match: re.Match[str]) -> bool:
    return digits(match[0]) >= 7


def _is_iban(match: re.Match[str]) -> bool:
    """ISO 13616: the first four characters go to the end, letters count from 10, and 97 leaves 1."""
    text = "".join(c for c in match[0] if c.isalnum())
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


# Countries by the length of their IBAN: a fixed one, so that the next word is no part of it.
_IBANS = {
    15: "NO",
    16: "BE",
    18: "DK|FI|FO|GL|NL",
    19: "MK|SI",
    20: "AT|BA|EE|KZ|LT|LU|XK",
    21: "CH|HR|LI|LV",
    22: "BG|BH|CR|DE|GB|GE|IE|ME|RS|VA",
    23: "AE|GI|IL|IQ|TL",
    24: "AD|CZ|ES|MD|PK|RO|SA|SE|SK|TN|VG",
    25: "LY|PT|ST",
    26: "IS|TR",
    27: "BI|DJ|FR|GR|IT|MC|SM",
    28: "AL|AZ|BY|CY|DO|EG|GT|HU|LB|PL|SV",
    29: "BR|PS|QA|UA",
    30: "JO|KW|MU",
    31: "MT|SC",
    32: "LC",
    33: "RU",
}
_IBAN = "|".join(rf"(?:{lands})\d\d(?:[ -]?[A-Z\d]){{{length - 4}}}" for length, lands in _IBANS.items())


def _is_card(match: re.Match[str]) -> bool:
    return 12 <= digits(match[0]) <= 19 and luhn(match[0])


_VEHICLE = re.compile(
    r"\b(?:reg(?:istration|o)?|plates?|tags?|vehicle|car|van|truck|lorry|bike|motorcycle|tail|boat|hull)"
    r"(?: (?:no|number|nr|with|plate|is)){0,2}[.:#]?[ (]{1,2}$",
    re.I,
)
_UNIT = (
    r"(?!\s{0,2}(?:mg|mcg|ug|ng|g|kg|ml|l|iu|units?|cells|copies|cfu|/|kcal|colonies|rbc|wbc|x10|%"
    r"|per\b|steps|dollars|usd))"
)


def _french(department: str) -> str:
    """A French number of social security, by the department of birth."""
    return (
        r"(?<![\w.-])[12][ .]?\d\d[ .]?(?:0[1-9]|1[0-2]|[2-9]\d)[ .]?"
        rf"{department}[ .]?\d{{3}}[ .]?\d{{3}}(?:[ .]?\d\d)?(?![\w-])"
    )


_SHAPED = (
    compile_rule("SSN", 0.98, r"(?<![\w-])\d{3}([- .]{1,2})\d{2}\1\d{4}(?![\w-])", starts=NUMBER, is_long=True),
    compile_rule(
        "SSN", 0.95, r"(?<![\w])(?:[x*#]{3}[- .]?[x*#]{2}|[x*#]{5})[- .]?\d{4}(?!\d)", needs=r"[*#x][- .]?[0-9]{4}"
    ),
    compile_rule(
        "SSN",
        0.98,
        r"\b(?:ss[#n]?|s\.s\.n\.?|soc(?:ial)?(?:[ -]sec(?:urity)?)?)(?:[ _-]{0,2}(?:number|num|no|#))?\.?[\s:=#*-]{0,4}"
        r"(?:(?:is|ending(?: in)?|ends in|last (?:4"
        r"|four)(?: digits)?(?: of)?)[\s:]{0,2}){0,2}(?P<value>\d(?:[ .-]?\d){3,8})(?!\d)",
        needs=(r"\d", r"s(?<!\ws)(?:s|\.s|oc)"),
    ),
    compile_rule(
        "IBAN",
        0.98,
        rf"(?<!\w)(?:{_IBAN})(?!\w)",
        _is_iban,
        needs=(r"\d", r"[0-9](?<=[a-z]\d)\d(?<=[a-z]{2}\d\d)(?<!\w[a-z]{2}\d\d)"),
        starts=r"[a-z]{2}\d\d",
    ),
    compile_rule("CARD", 0.95, r"(?<![\d.-])\d(?:[ -]?\d){11,18}(?![\d-])", _is_card, starts=NUMBER, is_long=True),
    compile_rule(
        "CARD",
        0.9,
        r"\b(?:cvv2?|cvc2?|cid|security code)[\s:=#]{1,3}(?P<value>\d{3,4})(?!\d)",
        words=("cvv", "cvc", "cid", "code"),
    ),
    compile_rule(
        "CARD",
        0.9,
        r"\b(?:visa|mastercard|amex|card)(?: card)?,? (?:ending|ends|last (?:4|four))(?: in"
        r"| digits)?[\s:]{1,3}(?P<value>\d{4})(?!\d)",
        words=("visa", "card", "amex"),
    ),
    compile_rule(
        "VEHICLE_ID",
        0.95,
        r"(?<![A-Z\d])(?=[A-Z\d]{0,16}\d)(?=[\d]{0,16}[A-Z])[A-HJ-NPR-Z\d]{17}(?![A-Z\d])",
        case=True,
    ),
    compile_rule(
        "VEHICLE_ID",
        0.9,
        r"\b(?:plates?|licen[cs]e tag)\b(?: (?:numbers?|no\.?|for \w+|on \w+ \w+|of \w+|reads?|is"
        r"|was)){0,3}[\s:#]{1,3}(?:[A-Z]{2} )?(?P<value>(?=[A-Z -]{0,8}\d"
        r"|\d)[A-Z\d]{1,4}[ -]?[A-Z\d]{2,5})(?!\w)",
        lambda m: digits(m["value"]) >= 1,
    ),
    # Formats: French social security, British driving licence, terminal-digit charts, British plates after their cue.
    compile_rule("SSN", 0.9, _french(r"\d\d"), starts=NUMBER, is_long=True),
    compile_rule("SSN", 0.9, _french("2[AB]"), words=("2a", "2b"), needs=r"\d"),  # of Corsica
    compile_rule("LICENSE", 0.9, r"(?<!\w)[A-Z][A-Z9]{4} ?\d{6} ?[A-Z9]{2}[A-Z\d]{3}(?!\w)", case=True),
    compile_rule(
        "MRN", 0.7, r"(?<![\w./-])\d{1,6}(?:-\d{1,6}){1,4}-[A-Z]{1,2}(?![\w-])", lambda m: digits(m[0]) >= 5, case=True
    ),
    compile_rule(
        "VEHICLE_ID",
        0.85,
        r"(?<![\w-])[A-Z]{1,3}-? ?\d{1,4} ?[A-Z]{0,3}(?![\w-])",
        lambda m: bool(_VEHICLE.search(m.string, max(0, m.start() - 24), m.start())),
        case=True,
    ),
    compile_rule(
        "ID",
        0.8,
        r"\b(?:user|username|login|logon|handle)(?: (?:is|name"
        r"|id))? (?P<value>[a-z][\w.-]{0,30}\d[\w.-]{0,30}(?<![.-]))",
    ),
    compile_rule("ID", 0.8, r"\bby (?P<value>[a-z]{2,6}\d{1,4})(?!\w)"),
    compile_rule("DEVICE_ID", 0.95, r"\(01\)\d{14}(?:\(\d{2}\)[\w-]{1,20}){0,5}"),
    compile_rule("DEVICE_ID", 0.9, r"\(21\)(?P<value>[\w-]{4,20})"),
    compile_rule("ID", 0.6, r"(?<![\w.-])[A-Z]{1,6}[-/]?\d[A-Z\d/-]{3,28}(?<![-/])(?![\w-])", _mixed, case=True),
    compile_rule(
        "ID", 0.6, r"(?<![\w.-])\d{1,12}[-/]?[A-Z]{1,4}[-/]?\d[A-Z\d/-]{0,24}(?<![-/])(?![\w-])", _mixed, case=True
    ),
    compile_rule("ID", 0.6, r"(?<![\w.,/+-])\d{6}(?![\w/]|[.,-]\d)" + _UNIT, _not_round),
    compile_rule("ID", 0.7, r"(?<![\w.-])[A-Z]{1,4}\d{6,12} \d{2}(?![\w/.-])", case=True),
    compile_rule("ID", 0.7, r"(?<![\w.,/+-])\d{7,}(?![\d/]|[.,-]\d)" + _UNIT),
    compile_rule("ID", 0.6, r"(?<![\w./-])\d{1,10}(?:[-/]\d{1,10}){1,5}(?![\w/-])", lambda m: digits(m[0]) >= 9),
    compile_rule("ID", 0.6, r"(?<![\w.,/-])\d{2,4}(?: \d{2,4}){2,5}(?![\w/-]|[.,]\d)", lambda m: digits(m[0]) >= 8),
    compile_rule(
        "ID",
        0.99,
        r"(?<![\w.-])[\w.-]{1,100}\.(?:jpe?g|png|gif|tiff?|bmp|heic|dcm|dicom|pdf|docx?|xlsx?|rtf|mp[34]"
        r"|mov|wav|m4a|avi|zip|hl7)(?!\w)",
        needs=r"\.[a-z]",
    ),
    compile_rule("ID", 0.6, r"(?<!\w)#\s?(?P<value>[A-Z]{0,3}-?\d{4,20}(?:-\d{1,8}){0,3})(?!\w)", case=True),
)


RULES = needing(r"\d", (*_SHAPED, *_CUED))


def find(view: str) -> list[Finding]:
    """Numbers and codes in `view`."""
    return scan(RULES, view)
