"""Clinical notes: extract the facts, summarise, and check the summary against the note.

    flujo run examples/clinical_notes/pipeline.py --input examples/clinical_notes/notes \\
        --plugin flujo-deidentifier --plugin flujo-audit

Nothing here knows of de-identification or audit: both are plugins that the command line names. With them, the note
reaches `extract` without its identifiers, every model request is looked at again, and each act is in the audit log.
"""

from __future__ import annotations

import re

import extractive
from pydantic import BaseModel

from flujo.core import Message, ModelRequest, Pipeline, RunContext, Step, UsageLimits, run_input

SUMMARY_TOKENS = 120


class Facts(BaseModel, frozen=True):
    """What a note states, line by line, in its own words."""

    diagnoses: list[str]
    medications: list[str]
    measurements: list[str]
    follow_up: list[str]


class Report(BaseModel, frozen=True):
    """A checked summary. `unsupported` lists what in the summary the note does not say."""

    summary: str
    facts: Facts
    unsupported: list[str]
    complete: bool


_DOSE = re.compile(r"\b[A-Za-z][A-Za-z-]{3,}\s+(?:\d+(?:[.,]\d+)?)\s?(?:mg|mcg|[\u00b5\u03bc]g|g|ml|mL|units?|IU|%)\b")
_MEASURED = re.compile(
    r"(?i)\b(?:BP|HR|RR|SpO2|temp|weight|height|BMI|Na|K|Hb|creatinine|eGFR|INR|HbA1c|LVEF|EF|GCS|glucose|troponin|CRP|"
    r"WBC|PSA|TSH)\b[^\n;,.]{0,24}?\d[\d./]*\s?(?:%|/min|mmHg|mg/dL|mmol/L|kg|cm|ng/L|mL/min)?"
)
_DIAGNOSIS = re.compile(
    r"(?i)^\W*(?:principal |secondary |admission |discharge |final |pre-?op\w* |post-?op\w* )?"
    r"(?:diagnos[ie]s|impression|assessment|dx|problems?|indications?|imp|past medical history|pmh)\b\s*[:.-]?\s*(.*)$"
)
_FOLLOW_UP = re.compile(r"(?i)\b(?:follow[- ]?up|f/u|return(?: to)?|review in|recheck|next visit|plan)\b")
_HEADING = re.compile(r"^[A-Z][A-Z /&()-]{3,}:?$")


def _under_heading(lines: list[str], at: int) -> list[str]:
    """The lines below a heading, up to the next one or an empty line."""
    found = []
    for line in lines[at + 1 :]:
        if not line.strip() or _HEADING.match(line.strip()):
            break
        found.append(line.strip(" -*•\t"))
    return found


async def extract(note: str) -> Facts:
    """Find diagnoses, doses, measurements and follow-up by the forms they are written in."""
    lines = note.splitlines()
    diagnoses: list[str] = []
    for number, line in enumerate(lines):
        heading = _DIAGNOSIS.match(line)
        if heading:
            diagnoses += [heading[1].strip()] if heading[1].strip() else _under_heading(lines, number)
    return Facts(
        diagnoses=list(dict.fromkeys(diagnoses)),
        medications=list(dict.fromkeys(match[0] for match in _DOSE.finditer(note))),
        measurements=list(dict.fromkeys(match[0].strip() for match in _MEASURED.finditer(note))),
        follow_up=[part for part in extractive.sentences(note) if _FOLLOW_UP.search(part)],
    )


async def summarise(note: str, facts: Facts, ctx: RunContext) -> str:
    """Ask the model for a summary; here it is the embedded extractive one."""
    asked = "Summarise for a colleague. Diagnoses found: " + "; ".join(facts.diagnoses)
    request = ModelRequest(
        model=extractive.NAME,
        messages=(Message(role="system", content=asked), Message(role="user", content=note)),
        max_tokens=SUMMARY_TOKENS,
    )
    response = await ctx.call_model(request, extractive.send, price=extractive.PRICE)
    return response.content


async def check(note: str, summary: str, facts: Facts) -> Report:
    """Hold every sentence and every dose of the summary against the note."""
    stated = " ".join(note.split())
    unsupported = [line for line in summary.splitlines() if " ".join(line.split()) not in stated]
    unsupported += [dose for dose in (match[0] for match in _DOSE.finditer(summary)) if dose not in note]
    complete = bool(summary) and not unsupported
    return Report(summary=summary, facts=facts, unsupported=unsupported, complete=complete)


extracting = Step(extract)
# On a remote backend each attempt holds its lease of the budget while it runs, so that many run side by side.
summarising = Step(
    summarise,
    inputs={"note": run_input(), "facts": extracting},
    timeout_s=60,
    lease=UsageLimits(total_tokens_limit=10_000),
)
checking = Step(check, inputs={"note": run_input(), "summary": summarising, "facts": extracting})

pipeline = Pipeline(extracting, summarising, checking, name="clinical-notes")
