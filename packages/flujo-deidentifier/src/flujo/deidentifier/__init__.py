"""De-identification for Flujo: offline, without a model, fail-closed.

`Deidentifier` finds and removes identifiers; `flujo.deidentifier.plugin` puts it into the path of every run. Importing
this package loads neither Presidio nor the word lists: the first detection does.
"""

from flujo.deidentifier.deidentifier import PROFILES, Deidentifier, Redaction
from flujo.deidentifier.errors import DeidentifierError, DetectorFailed, DetectorTimeout, TextTooLong, ValueNotCovered
from flujo.deidentifier.findings import ENTITIES, STRUCTURED, Finding

__all__ = [
    "ENTITIES",
    "PROFILES",
    "STRUCTURED",
    "Deidentifier",
    "DeidentifierError",
    "DetectorFailed",
    "DetectorTimeout",
    "Finding",
    "Redaction",
    "TextTooLong",
    "ValueNotCovered",
]
