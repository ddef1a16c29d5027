"""Names of institutions: hospitals, practices, employers, schools, churches."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare, lexicon
from flujo.deidentifier.rules.pattern import compile_rule, scan
from flujo.deidentifier.rules.places import CAPITALISED_WORDS, PLAIN_WORD
from flujo.deidentifier.rules.vocabulary import EPONYM_HEADS, GENERIC, NOT_NAMES, is_generic

__all__ = ["find"]

_KIND = (
    r"(?:Hospitals?|Clinics?|Medical (?:Center|Centre|Group|Associates|Clinic|Plaza|Arts)|Med Center"
    r"|Medical|Health(?: ?care)?(?: (?:System|Center|Centre|Network|Services|Clinic|Group|Partners))?"
    r"|Infirmary|Hospice|Nursing Home"
    r"|Nursing (?:Center|Facility)|Rehab(?:ilitation)?(?: (?:Center|Hospital|Facility))?"
    r"|Assisted Living|Senior Living|Care (?:Center|Home)|Sanatorium|Surgery Center|Surgical Center"
    r"|Imaging(?: Center)?|Radiology|Cancer (?:Center|Institute)|Dialysis(?: Center)?"
    r"|Institute|University|College|Academy|(?:High |Elementary |Middle |Primary |Nursery )?School"
    r"|Kindergarten|Pharmacy|Drugs?tore|Laborator(?:y|ies)|Labs|Family (?:Practice|Medicine|Health)"
    r"|Physicians|Pediatrics|Dental|Orthopa?edics|Cardiology|Dermatology"
    r"|Church|Temple|Mosque|Synagogue|Parish|Cathedral|Inc|Incorporated|LLC|L\.L\.C|LLP|PLLC|Ltd"
    r"|Limited|GmbH|AG|Corp|Corporation|Company|Co|Associates|Partners|Industries|Enterprises"
    r"|Solutions|Logistics|Foods|Motors|Steel|Airlines|Airways|Bank|Insurance|Foundation"
    r"|Retirement (?:Home|Community|Village)|Manor|Lodge|Ranch|Farms?|Bakery|Brewery|Restaurant|Diner"
    r"|Cafe|Hotel|Inn|Construction|Plumbing|Electric|Transit|Library|Museum|Fire Department"
    r"|Police Department|Sheriff|Prison|Correctional (?:Facility|Institution)|Jail|Audiology|Optometry"
    r"|Endocrinology|Gastroenterology|Psychiatry|Nephrology|Rheumatology|Pulmonology|Podiatry|ENT|Care"
    r"|Seniors|Plaza|Mall|Towers?|Pavilion|Campus|Shelter|Hosp"
    r"|Med Ctr|Medical Ctr|Ctr|Practice|Surgery|Klinikum"
    r"|Krankenhaus|Day ?[Cc]are|Child ?[Cc]are|Preschool|Theat(?:er|re)|Gym|Club|Market|Store"
    r"|Supermarket|Garage|Salon|Studios?|Mill|Mining|Supply"
    r"|Couriers?|Freight|Shipping|Trucking|Railroad|Rail|Landscaping|Roofing|Services|Group|Agency"
    r"|Firm|Law|Center|Centre|Pediatric Group|Eye Care|Optical|Charit(?:y|ies)|Society|Ministr(?:y"
    r"|ies)|Salvation Army|Alliance|Coalition|Council|Trust|League|Mission|Monastery|Convent|Abbey"
    r"|Headquarters|Division|Plant|Factory|Warehouse|Dermpath|Pathology|Diagnostics|Oncology|Neurology"
    r"|Urology|Women's Health|Wellness|Counseling|Recovery|Treatment Center|Vineyards?"
    r"|Orchards?|Nursery|Dairy|Tavern|Pub|Grill|Pizza|Catering|Drugs|Chemists?|Opticians?|Apothecary|Cabs?|Taxis?|Arms"
    r"|Medicine|Eye Unit|Unit|Co-?operative|Dental Studio|Dentistry|Orthodontics|Prosthetics|Veterinary|Barbers?|Bistro"
    r"|Boatworks|Boat Works|Shipyards?|Foundry|Cannery|Distillery|Winery|Textiles|Press|Publishing|Media|Systems"
    r"|Technologies"
    r"|Software|Conservatory|Orchestra|Choir|Theology|Seminary|Gurdwara|Mandir|Chapel|Hostel|Lines|Haulage|Rigging"
    r"|Stevedoring|Fire & Rescue|Rescue|Brigade|Genomics|Genetics|Biotech|Pharma|Works)"
)
_LINE_WORD = r"[A-Z][\w'&.-]{0,30}"
_LINE = re.compile(r"[^\s][^\n]*[^\s]")
_LETTERHEAD = re.compile(r"[A-Z][\w'&.,-]{0,30}(?: (?:[A-Z&][\w'&.,-]{0,30}|of|the|and|for|de|la)){1,7}")
_NEXT_WORD = re.compile(r" [A-Z][a-z]{2,20}(?= ?[,.;)\n]| [a-z])")
_ORGANISATION = (
    compile_rule(
        "ORGANIZATION",
        0.85,
        rf"(?<![\w'-]){PLAIN_WORD}(?: (?:{PLAIN_WORD}|&|and|of)){{0,5}},? (?:P\.C\.|P\.A\.|PLLC"
        r"|L\.?L\.?C\.?|LLP|Inc\.?|Ltd\.?|GmbH)(?!\w)",
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.85,
        r"(?<![\w'])(?:(?:St\.?|Saint|Mt\.?|Mount|Our Lady of|The|[A-Z][\w'&-]{0,25},?|of|the|and"
        rf"|&) ){{1,5}}{_KIND}(?: {_KIND}){{0,3}}\b\.?(?: (?:of|at|in) (?:the )?{CAPITALISED_WORDS})?",
        lambda m: not is_generic(m[0]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.85,
        r"(?<![\w'])(?:[A-Z][A-Z'&.-]{1,25},? ){1,5}(?:HOSPITALS?|CLINICS?|MEDICAL CENTER|MEDICAL GROUP"
        r"|CENTER|CENTRE|HEALTH(?:CARE)?(?: SYSTEM| CENTER)?|IMAGING|RADIOLOGY|LABORATOR(?:Y|IES)|LABS"
        r"|PHARMACY|ASSOCIATES|PHYSICIANS|PRACTICE|PARTNERS"
        r"|INFIRMARY|HOSPICE|INSTITUTE|UNIVERSITY|COLLEGE|SCHOOL|MEDICINE|CARDIOLOGY|ORTHOPA?EDICS"
        r"|PEDIATRICS|ONCOLOGY|DERMATOLOGY|SURGERY CENTER|REHABILITATION|LLC|LLP|INC|CORP|PLLC|COMPANY)\b",
        lambda m: not is_generic(m[0]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.8,
        r"(?m)^[ \t]{0,40}(?P<value>[A-ZÀ-ÖØ-ÞĀ-Ž][^\W\da-zß-ÿ]{1,25}(?: (?:[^\W\da-zß-ÿ]{2,25}|&)){0,4}"
        r" (?:STUDIO|CO-?OPERATIVE|DIALYSIS|DENTAL|PAVILION|COLLECTIVE|TRUST|FOUNDATION|GROUP|SERVICES|LAB|UNIT"
        r"|HOME|DEPOT"
        r"|PHARMACIE|APOTHEKE|FARMACIA|KLINIKUM|ZIEKENHUIS|SURGERY|DENTISTRY|OPTICIANS|CHEMISTS?"
        r"|ACADEMY))(?=[ \t]{2}|\s*$| -)",
        lambda m: not is_generic(m["value"]),
        case=True,
    ),
    compile_rule("ORGANIZATION", 0.8, r"(?<!\w)(?:St\.?|Saint|SS\.?) [A-Z][a-z]{2,20}'s(?!\w)", case=True),
    compile_rule(
        "ORGANIZATION",
        0.8,
        r"(?<![\w'-])(?:[A-Z][\w'-]{1,25} |(?:al|el|as|ad)-[A-Z][\w'-]{1,25} ){1,4}(?:mosque|church|synagogue"
        r"|temple|gurdwara"
        r"|chapel|lab|laboratory|pharmacy|school|college|bakery|dairy|garage|clinic|surgery|hospital|hospice"
        r"|nursery|shop)\b",
        lambda m: _sure(m[0].rsplit(" ", 1)[0]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.8,
        r"(?<![\w'-])(?:[A-ZÀ-Þ][\w'-]{1,25} ){1,3}& [A-Z][\w'-]{2,25}(?: [A-Z][\w'-]{2,25})?",
        lambda m: any(_unheard(w) for w in m[0].split()),
        case=True,
    ),
    # Institutions in other languages put the kind first: "Praxis Dr. ...", "Farmácia ...", "Cabinet d'...".
    compile_rule(
        "ORGANIZATION",
        0.8,
        r"(?<![\w'-])(?:(?:Labor|Praxis|Gemeinschaftspraxis|Zahnarztpraxis|Kanzlei|Klinik(?:um)?|Krankenhaus"
        r"|Apotheke|Seniorenheim"
        r"|Huisartsenpraktijk|Tandartspraktijk|Apotheek|Ziekenhuis|Pharmacie|Laboratoire|H[ôo]pital|Cabinet"
        r"|Clinique|Maison de"
        r"|[ÉE]cole|Lyc[ée]e|Farm[áa]cia|Drogaria|Cl[íi]nica|Laborat[óo]rio|Hospital (?=S[ãa]o|Santa|San|Sant"
        r"|Nossa|Nuestra|Universit|Geral"
        r"|General|de|do|da|del)|Colegio|Col[ée]gio|Escuela|Escola|Ospedale|Ambulatorio|Panader[íi]a|Restaurante"
        r"|B[ệe]nh vi[ệe]n)"
        r" ?)(?:(?:Dr|Prof|Dres|St|Sta)\.? ?|d'[\w-]{2,25} |(?:de|du|des|do|da|dos|das|del|di|von|van|la|le|los"
        r"|las|den|der|zum|am) )"
        r"{0,4}[A-ZÀ-Þ][\w'-]{1,25}(?: (?:(?:de|du|des|do|da|dos|das|del|di|von|van|la|le|los"
        r"|las) ){0,2}[A-ZÀ-Þ][\w'-]{1,25}){0,4}"
        r"(?:, (?:Farm[áa]cia|Cl[íi]nica|Abteilung|Service|Servi[çc]o)(?: [A-ZÀ-Þ][\w'-]{1,25}){0,3})?",
        lambda m: not is_generic(m[0]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.75,
        r"\b(?:admitted|transferred|seen|treated|born|works?|worked) (?:at|to|from"
        r"|for) (?P<value>(?:[a-z]{3,20} ){1,3}(?:memorial|regional"
        r"|general|community|hospital|medical center|clinic|nursing home|rehab))(?= (?:on|in|for|with|and|by"
        r"|where)\b|[.,;]|\s*$)",
        lambda m: (
            not is_generic(m["value"])
            and not m["value"].startswith(("the ", "our ", "this ", "an ", "another ", "outside "))
        ),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.8,
        rf"(?m)^[ \t]{{0,40}}(?P<value>{_LINE_WORD}(?: (?:{_LINE_WORD}|of|the|and|for|&|de|la)){{0,6}})[ \t]{{0,20}}"
        r"(?:, (?=\d{1,6} [A-Z])|\n(?=[ \t]{0,40}(?:\d{1,6} [A-Z]|P\.? ?O\.? Box|(?i:tel|phone|ph|t|e)\b ?[.:]"
        r"|[A-Z][^\n\d]{5,70}, ?(?:[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|[A-Z]{2} \d{5})"
        r"|[A-Z][^\n\d]{5,70} (?:[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})\b)))",
        lambda m: not _closed_word(m["value"]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.85,
        r"\b(?:Our Lady of (?:the )?|Sacred |Holy |Good |Church of (?:the )?)(?:Heart|Cross|Trinity|Family"
        rf"|Name|Spirit|Shepherd|Samaritan|{PLAIN_WORD})(?: {PLAIN_WORD})?",
        lambda m: m[0][:5] != "Good " or m[0][5:9] in ("Sama", "Shep"),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.85,
        r"\b(?:University|College|Hospital|Institute|Church|Bank|School|Children's Hospital|Hospice) (?:of"
        rf"|at) (?:the )?{CAPITALISED_WORDS}",
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.7,
        rf"(?<=[a-z,;] )at (?:the )?(?P<value>{PLAIN_WORD}(?: {PLAIN_WORD}){{0,2}})(?=[ ,.;)])"
        rf"(?! (?:{'|'.join(sorted(EPONYM_HEADS))})s?\b)",
        lambda m: not _closed_word(m["value"]),
        case=True,
    ),
    compile_rule(
        "ORGANIZATION",
        0.8,
        r"\b(?i:works? (?:\w{2,12} ){0,4}?(?:at|for)|worked (?:at|for)|working (?:at"
        r"|for)|employed (?:by|at|with)|employer(?:'s name)?(?: is|:)|employee (?:of|at)|job (?:at|with)"
        r"|retired from|laid off (?:from|by)|fired from|student at|studies at|enrolled (?:at|in)"
        r"|attends|teaches at|teacher at|manager at|owns|volunteers at|(?:engineer|driver|clerk|nurse"
        r"|cashier|cook|technician|mechanic|officer|accountant|janitor|attorney|supervisor|waitress"
        r"|welder) (?:at|for|with)) (?:(?:the|a) )?(?P<value>[A-Z][\w'&-]{1,25}(?: (?:(?:of|the|and"
        r"|&) )?[A-Z&][\w'&-]{0,25}){0,4})",
        lambda m: not is_generic(m["value"]),
        case=True,
    ),
)


def _closed_word(value: str) -> bool:
    """Whether "at Bedtime", "at Physical Therapy" names no particular place."""
    lex = lexicon()
    words = [bare(w.strip(".'")) for w in value.split()]
    return all(w in NOT_NAMES or w in GENERIC or lex.is_allowed(w) or lex.is_medical(w) for w in words)


def _unheard(word: str) -> bool:
    low, lex = bare(word.strip(".'")), lexicon()
    return len(low) > 2 and not (low in NOT_NAMES or lex.is_word(low) or lex.is_allowed(low) or lex.is_medical(low))


def _sure(value: str) -> bool:
    """Two capitalised words that are no service ("Elm Lane"), or one that is in no list."""
    words = value.split()
    street = words[-1] in ("Road", "Street", "Lane", "Avenue", "Hill", "Park", "Court", "Way")
    return any(_unheard(w) for w in words) or sum(not _closed_word(w) for w in words) + street > 1


def _letterhead(view: str) -> Iterator[Finding]:
    """One of the first two lines, when it is all capitalised words and one of them is in no word list."""
    lex = lexicon()
    for line in list(_LINE.finditer(view[:400]))[:2]:
        match = _LETTERHEAD.fullmatch(line[0].strip())
        words = [bare(w) for w in re.findall(r"[^\W\d_]{2,}", line[0])]
        closed = [
            w in NOT_NAMES or w in GENERIC or lex.is_allowed(w) or lex.is_medical(w) or lex.is_word(w) for w in words
        ]
        if match and words[0] != "dear" and 2 <= len(words) <= 8 and not all(closed):
            yield Finding(line.start(), line.end(), "ORGANIZATION", 0.75)


def find(view: str) -> Iterator[Finding]:
    """Institutions in `view`."""
    yield from _letterhead(view)
    for found in scan(_ORGANISATION, view):
        more = None if view[found.end - 1] == "." else _NEXT_WORD.match(view, found.end)
        yield found._replace(end=more.end()) if more and not _closed_word(more[0]) else found
