"""The gold list of the clinical notes is exact, complete in kind, and says what it means.

Everybody and every number in the notes is invented. How the notes are annotated:

* PERSON is the name without title, credentials or possessive ending; nicknames and initials count.
* LOCATION is anything below a state: street with its unit, city, county, ZIP (one span each), coordinates.
  States, countries and languages are not marked, nor are ward and bed numbers.
* DATE is anything finer than a year, holidays included; the clock time beside it is not. A year alone is marked only
  where it shows an age over 89. AGE is marked only over 89.
* ORG is a hospital, practice, employer, school, shop or congregation. ID is every other unique number or handle.
* Eponyms, drugs, devices without a serial, scales and the names of pets are not identifiers.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
NOTES = {path.name: path.read_bytes().decode("utf-8") for path in sorted((HERE / "notes").glob("*.txt"))}
CLEAN = {path.name: path.read_bytes().decode("utf-8") for path in sorted((HERE / "clean").glob("*.txt"))}
WORDS = {"PERSON", "LOCATION", "DATE", "AGE", "ORG"}
CONTACTS = {"PHONE", "FAX", "EMAIL", "URL", "IP"}
NUMBERS = {"SSN", "MRN", "PLAN_ID", "ACCOUNT", "LICENSE", "VEHICLE", "DEVICE", "ID"}
# Spelled-out numbers too: one note is a dictation.
DOSE = re.compile(r"\b(\d[\d.,]*|one|two|five|seventy five) ?(mg|mcg|g|grams?|milligrams|units)\b", re.IGNORECASE)
PLAN = re.compile(r"\b(plan|follow-up|recommendations?)\b|^P: ", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Span:
    """One line of gold.jsonl: offsets in characters of the decoded note, end exclusive."""

    note: str
    start: int
    end: int
    text: str
    entity: str


GOLD = [Span(**json.loads(line)) for line in (HERE / "gold.jsonl").read_text(encoding="utf-8").splitlines()]


def name_key(text: str) -> tuple[str, ...]:
    """Make "OUYANG, Jun" and "Jun Ouyang" equal."""
    return tuple(sorted(re.findall(r"[^\W\d_]+", text.casefold())))


def unmarked_text(note: str) -> str:
    """The note with every gold span blanked out."""
    characters = list(NOTES[note])
    for span in GOLD:
        if span.note == note:
            characters[span.start : span.end] = " " * (span.end - span.start)
    return "".join(characters)


def test_every_span_is_the_text_between_its_offsets() -> None:
    """An offset that is off by one would make every recall figure a lie."""
    wrong = [span for span in GOLD if NOTES[span.note][span.start : span.end] != span.text]
    assert wrong == []


def test_no_span_is_empty_or_padded() -> None:
    """White space at an edge would ask a detector for characters that identify nobody."""
    assert [span for span in GOLD if not span.text or span.text != span.text.strip()] == []


def test_spans_are_sorted_and_do_not_overlap() -> None:
    """Counts per entity are only meaningful over disjoint spans."""
    for before, after in pairwise(GOLD):
        assert before.note < after.note or (before.note == after.note and before.end <= after.start), (before, after)


def test_there_are_at_least_twenty_notes_and_five_hundred_and_fifty_spans() -> None:
    """Fewer would not carry a recall figure."""
    assert len(NOTES) >= 20
    assert len(GOLD) >= 550


def test_every_note_holds_at_least_five_identifiers() -> None:
    """A note without identifiers belongs into clean/."""
    counts = Counter(span.note for span in GOLD)
    assert set(counts) == set(NOTES)
    assert min(counts.values()) >= 5


def test_exactly_the_documented_entity_kinds_occur() -> None:
    """Each kind of the Safe Harbor list is present, and none is misspelt."""
    assert {span.entity for span in GOLD} == WORDS | CONTACTS | NUMBERS


def test_the_notes_differ_in_length() -> None:
    """Short jottings and long letters both occur."""
    lengths = [len(text.split()) for text in NOTES.values()]
    assert min(lengths) <= 80
    assert max(lengths) >= 650
    assert len(set(lengths)) >= 20


def test_no_two_notes_share_a_full_name() -> None:
    """Neither patients nor relatives nor clinicians are reused, so a detector cannot learn them in one note."""
    notes_by_name: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for span in GOLD:
        if span.entity == "PERSON" and " " in span.text:
            notes_by_name[name_key(span.text)].add(span.note)
    assert len(notes_by_name) >= len(NOTES)
    assert {name: notes for name, notes in notes_by_name.items() if len(notes) > 1} == {}


def test_every_repetition_of_an_identifier_is_marked() -> None:
    """A name marked once and forgotten the second time would count as a false alarm of a good detector."""
    forgotten = []
    for note in NOTES:
        rest = unmarked_text(note)
        # An age is only a number: the same number elsewhere may be a saturation.
        for span in (span for span in GOLD if span.note == note and span.entity != "AGE"):
            parts = [span.text]
            if span.entity == "PERSON":
                parts += [part for part in re.findall(r"[^\W\d_]{3,}", span.text) if part[0].isupper()]
            forgotten += [(note, part) for part in parts if re.search(rf"(?<!\w){re.escape(part)}(?!\w)", rest)]
    assert forgotten == []


def test_only_ages_over_eighty_nine_are_marked_and_no_such_age_is_left() -> None:
    """Ages up to 89 may stay under Safe Harbor; older ones may not."""
    marked = [int(span.text) for span in GOLD if span.entity == "AGE" and span.text.isdigit()]
    assert marked
    assert min(marked) > 89
    left = re.compile(r"\b(9\d|1[01]\d)[ -]?(years?|yo|y/o|y)\b", re.IGNORECASE)
    assert [note for note in NOTES if left.search(unmarked_text(note))] == []


def test_every_note_has_a_medication_dose_and_a_plan() -> None:
    """The example extracts facts and summarises: each note must hold some."""
    assert [note for note, text in NOTES.items() if not DOSE.search(text) or not PLAN.search(text)] == []


def test_clean_texts_hold_no_name_of_the_notes_and_nothing_shaped_like_an_identifier() -> None:
    """What a detector marks in them is a false alarm."""
    shapes = re.compile(r"@|://|\b\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}\b|\b\d{3}-\d{4}\b|\b9\d[ -](years?|yo)\b")
    names = {span.text for span in GOLD if span.entity == "PERSON" and " " in span.text}
    named = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)", re.IGNORECASE)
    assert len(CLEAN) == 12
    for name, text in CLEAN.items():
        assert shapes.search(text) is None, name
        assert named.search(text) is None, name
