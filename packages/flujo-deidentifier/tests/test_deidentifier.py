"""The public face: offsets, order, placeholders, counts, profiles, errors."""

import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from flujo.core import ConfigurationError
from flujo.deidentifier import ENTITIES, Deidentifier, DetectorFailed, DetectorTimeout, Finding, TextTooLong

NOTE = (
    "Mrs. Ottoline Vargadottir (DOB 4/17/1961, MRN 00718844) was seen on 12-Mar-2024 by Dr. Stone.\n"
    "Her son Will lives in Kettering, call 937-555-0142. BP 120/80, pain 5/10, HbA1c 7.2 %.\n"
)


@pytest.fixture(scope="module")
def deidentifier():
    return Deidentifier(reference_year=2024)


def test_findings_are_slices_of_the_given_text(deidentifier):
    found = {NOTE[f.start : f.end]: f.entity for f in deidentifier.detect(NOTE)}
    assert found == {
        "Ottoline Vargadottir": "PERSON",
        "4/17/1961": "DATE",
        "00718844": "MRN",
        "12-Mar-2024": "DATE",
        "Stone": "PERSON",
        "Will": "PERSON",
        "Kettering": "LOCATION",
        "937-555-0142": "PHONE",
    }


def test_findings_are_sorted_do_not_overlap_and_have_known_names(deidentifier):
    found = deidentifier.detect(NOTE * 3)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(f.entity in ENTITIES and 0 < f.score <= 1 and isinstance(f, Finding) for f in found)


def test_redacting_puts_typed_placeholders(deidentifier):
    assert deidentifier.redact(NOTE) == (
        "Mrs. [PERSON] (DOB [DATE], MRN [MRN]) was seen on [DATE] by Dr. [PERSON].\n"
        "Her son [PERSON] lives in [LOCATION], call [PHONE]. BP 120/80, pain 5/10, HbA1c 7.2 %.\n"
    )


def test_redacting_twice_changes_nothing_more(deidentifier):
    once = deidentifier.redact(NOTE)
    assert deidentifier.redact(once) == once
    assert deidentifier.detect(once) == []


def test_placeholders_next_to_identifiers_are_kept_whole(deidentifier):
    assert (
        deidentifier.redact("[PERSON] Vargadottir, [DATE] and 937-555-0142") == "[PERSON] [PERSON], [DATE] and [PHONE]"
    )


def test_counts_say_what_was_taken_out(deidentifier):
    assert deidentifier.counts(NOTE) == {"PERSON": 3, "DATE": 2, "MRN": 1, "PHONE": 1, "LOCATION": 1}
    assert deidentifier.redaction(NOTE).counts == deidentifier.counts(NOTE)


@pytest.mark.parametrize("text", ["", " ", "\n", "The patient feels well and walks without help."])
def test_text_without_identifiers_comes_back_unchanged(deidentifier, text):
    assert deidentifier.detect(text) == []
    assert deidentifier.redact(text) == text


def test_a_name_told_by_a_cue_is_found_elsewhere_in_the_text(deidentifier):
    text = "Patient: Hope Rivers\n\nHope denies pain. Later RIVERS was discharged."
    assert deidentifier.redact(text) == "Patient: [PERSON]\n\n[PERSON] denies pain. Later [PERSON] was discharged."


def test_equal_input_gives_equal_output_in_every_thread(deidentifier):
    expected = deidentifier.detect(NOTE)
    results = []
    threads = [threading.Thread(target=lambda: results.append(deidentifier.detect(NOTE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


def test_the_patterns_profile_knows_shapes_but_no_names():
    patterns = Deidentifier("patterns")
    assert patterns.redact("Vargadottir, 937-555-0142, 4/17/1961") == "Vargadottir, [PHONE], [DATE]"


def test_importing_the_package_or_the_plugin_loads_neither_presidio_nor_spacy():
    code = (
        "import sys, flujo.deidentifier, flujo.deidentifier.plugin\n"
        "bad = {'presidio_analyzer', 'spacy', 'phonenumbers', 'click'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240).stderr == ""


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"'gdpr' is unknown.*hipaa_safe_harbor, patterns"):
        Deidentifier("gdpr")


@pytest.mark.parametrize("limits", [{"max_chars": 0}, {"timeout_s": 0}, {"timeout_s": float("nan")}])
def test_a_limit_that_lets_nothing_through_is_refused(limits):
    with pytest.raises(ConfigurationError, match="not positive"):
        Deidentifier(**limits)


def test_a_text_over_the_limit_is_refused_and_the_error_does_not_show_it():
    with pytest.raises(TextTooLong, match=r"101 characters.*one call takes 100") as caught:
        Deidentifier(max_chars=100).redact("Vargadottir" + "x" * 90)
    assert "Vargadottir" not in str(caught.value)


def test_work_over_its_time_is_stopped_not_cut_short():
    with pytest.raises(DetectorTimeout, match="no result after 1e-06 s"):
        Deidentifier(timeout_s=1e-6).detect(NOTE)


def test_a_detector_that_raises_fails_the_call_and_its_message_stays_inside():
    from presidio_analyzer import EntityRecognizer

    class Broken(EntityRecognizer):
        def load(self):
            return None

        def analyze(self, text, entities, nlp_artifacts=None):
            raise RuntimeError(f"could not read {text}")

    with pytest.raises(DetectorFailed, match="'presidio' failed: RuntimeError") as caught:
        Deidentifier(recognizers=[Broken(supported_entities=["X"])]).redact(NOTE)
    assert "Vargadottir" not in str(caught.value)


def test_a_pattern_of_presidio_that_times_out_raises_instead_of_being_skipped():
    from presidio_analyzer import Pattern, PatternRecognizer

    slow = PatternRecognizer("SLOW", patterns=[Pattern("slow", r"^(([a-z])+.)+[A-Z]([a-z])+$", 0.9)])
    with pytest.raises(DetectorTimeout, match="PatternRecognizer"):
        Deidentifier(recognizers=[slow]).redact("a" * 1500 + "!")


def test_own_recognizers_of_presidio_are_used_under_their_own_names():
    from presidio_analyzer import Pattern, PatternRecognizer

    locker = PatternRecognizer("LOCKER", patterns=[Pattern("locker", r"\bLK[a-z]\d\b", 0.9)])
    assert Deidentifier(recognizers=[locker]).redact("put it in LKb7 today") == "put it in [LOCKER] today"
    assert Deidentifier().redact("put it in LKb7 today") == "put it in LKb7 today"
