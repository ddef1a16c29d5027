"""The word lists: what is an English word, a name, a town, a medicine.

Loaded once, at the first detection. Sources and licences stand in `data/README.md`.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Lexicon", "bare", "lexicon"]

_DATA = files("flujo.deidentifier") / "data"

# Word endings that mark a medicine, a finding or a procedure: no list of them is ever complete.
_MEDICAL_END = re.compile(
    r"(?:ectom(?:y|ies)|ostomy|otomy|plasty|scop(?:y|ic|ies)|graph(?:y|ic)|gram|itis|itides|osis|oses"
    r"|otic|emi[ac]|uri[ac]|path(?:y|ic|ies)|algia"
    r"|megaly|penia|cyt(?:e|es|osis|ic)|philia|rrh?ea|rrhage|rrhagic|olog(?:y|ist|ists|ical|ic|ies)"
    r"|troph(?:y|ic)|plegi[ac]|paresis"
    r"|esthesi[ac]|phasi[ac]|phagi[ac]|pne[ai]c?|cardi[ac]|tensi(?:on|ve)|genic|lytic|odynia|oma|omas"
    r"|metry|ectasis|stenosis|edema|opsy"
    r"|pril|sartan|statin|olol|azole|oxacin|mycin|micin|cillin|cycline|azepam|azolam|zepine|triptyline"
    r"|oxetine|afil|gliptin"
    r"|gliflozin|glutide|natide|[ui]mab|[ztx]umab|tinib|ciclib|parib|parin|xaban|gatran|grelor|idone"
    r"|tiapine|zapine|setron|triptan"
    r"|dronate|prazole|tidine|semide|thiazide|phylline|terol|olone|sone|caine|barbital|dopa|dipine"
    r"|zosin|(?:clo|cyclo|ga[nl]ci|dofo|rito)vir|lukast"
    r"|fenac|profen|oxicam|coxib|codone|morphone|azosin|oxin|amide|amine|idine|azine|phrine|mustine"
    r"|platin|rubicin|taxel|bitril|prost|pexole|poetin|parvovec|tuximab|capone|giline|calcidol|ciguat|cillin|penem"
    r"|floxacin|cyclovir|tegravir|navir|buvir|asvir|fungin|conazole|racetam|bamate|gabalin|setine|lisib|degib|zomib|ximab"
    r"|lateral|flexion|extension|ductal|venous|arterial|vascular|cranial|muscular|skeletal|thoracic"
    r"|abdominal|surgical|intestinal|articular)s?$"
)
_MEDICAL_START = re.compile(
    r"(?:hyper|hypo|normo|intra|extra|supra|infra|peri|endo|cardio|neuro|gastro|hepato|nephro|osteo"
    r"|thrombo|pneumo|electro|echo|ultra|micro"
    r"|macro|immuno|ha?emo|lympho|radio|psycho|cyto|broncho|laryngo|angio|arthro|dermato|fibro|musculo"
    r"|naso|naso|oro|retro|trans|chemo|bio)[a-z]{3,}$"
)
_PREFIX = re.compile(
    r"(?:non|un|pre|post|re|sub|inter|over|anti|multi|semi|mid|co|dis|mis|under|out|up|down|tele|auto"
    r"|poly|mono|bi|tri)-?"
)
# Letters that have no decomposition into a base letter and a mark.
_BASE = str.maketrans("łøđðħıŁØĐ", "lodohiLOD") | {ord("æ"): "ae", ord("œ"): "oe", ord("ß"): "ss", ord("þ"): "th"}


def bare(word: str) -> str:
    """`word` in small letters without accents, as the lists hold it."""
    low = word.lower()
    if low.isascii():
        return low
    decomposed = unicodedata.normalize("NFD", low.translate(_BASE))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


_BRITISH = (("ae", "e"), ("oe", "e"), ("our", "or"), ("yse", "yze"), ("tre", "ter"), ("ll", "l"))
_ISE = re.compile(r"is(e[sdr]?|ing|ations?)$")


def _american(low: str) -> str:
    """A word in American spelling, which is what the word list has ("orthopaedic", "tumour", "hospitalised")."""
    for british, american in _BRITISH:
        low = low.replace(british, american)
    return _ISE.sub(r"iz\1", low)


class Lexicon(NamedTuple):
    """The lists, in small letters without accents."""

    words: frozenset[str]
    proper: frozenset[str]
    given: frozenset[str]
    surnames: frozenset[str]
    places: frozenset[str]
    long_places: tuple[str, ...]
    allowed: frozenset[str]
    eponyms: frozenset[str]

    def is_word(self, low: str) -> bool:
        """Whether this is an ordinary English word, also as a plural or with a usual prefix."""
        if low in self.words or (low.endswith("s") and low[:-1] in self.words):
            return True
        if len(low) > 5 and _american(low) in self.words:
            return True
        prefix = _PREFIX.match(low)
        return bool(prefix and len(low) - prefix.end() >= 4 and low[prefix.end() :] in self.words)

    def is_allowed(self, low: str) -> bool:
        """Whether this is a medicine, a state, a short form or another capitalised word that names no one."""
        if low in self.allowed or (low.endswith("s") and low[:-1] in self.allowed):
            return True
        if low in self.eponyms:
            return low not in self.surnames and low not in self.given and low not in self.places
        return False

    @staticmethod
    def is_medical(low: str) -> bool:
        """Whether the shape of the word is that of a medicine, a finding or a procedure."""
        return len(low) >= 6 and bool(_MEDICAL_END.search(low) or (len(low) >= 9 and _MEDICAL_START.match(low)))

    def is_name(self, low: str) -> bool:
        """Whether the word is known as a given name or a surname (it may be an English word as well)."""
        return low in self.given or low in self.surnames


def _entries(name: str) -> list[str]:
    text = (_DATA / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _words(name: str) -> frozenset[str]:
    return frozenset(word for line in _entries(name) for word in line.split())


def _packed(name: str) -> frozenset[str]:
    with (_DATA / name).open("rb") as packed:
        return frozenset(bare(word) for word in gzip.decompress(packed.read()).decode().split("\n"))


@cache
def lexicon() -> Lexicon:
    """The word lists of this package; read from disk at the first call (about 0.1 s), then shared."""
    lines = _entries("places.txt")
    long_places = tuple(line for line in lines if line[:1].isupper())
    short = frozenset(word for line in lines if not line[:1].isupper() for word in line.split())
    return Lexicon(
        words=_packed("words.txt.gz"),
        proper=_packed("proper.txt.gz"),
        given=_words("given_names.txt"),
        surnames=_words("surnames.txt"),
        places=short,
        long_places=long_places,
        allowed=_words("allowed.txt"),
        eponyms=_words("eponyms.txt"),
    )
