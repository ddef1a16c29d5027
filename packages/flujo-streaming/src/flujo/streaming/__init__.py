"""Streaming for Flujo: chunks flow through every step at the pace of whoever reads them.

`StreamingStep` makes a step of an async generator, and `>>` lets one pull from another. What stands between them is a
step as well: `buffer`, `sentences`, `throttle`, `partial_json`. `tee` shares a stream, `merge` joins several.
"""

from flujo.core import Chunk, PausedItem, ResultItem, RunStream, StepEnded, StepStarted, UsageUpdate
from flujo.core import StreamingAgent as StreamingAgentProtocol
from flujo.streaming.merging import Tagged, merge
from flujo.streaming.partials import partial_json
from flujo.streaming.pump import buffer
from flujo.streaming.steps import StreamingStep, streaming_step
from flujo.streaming.teeing import TeeOverflow, tee
from flujo.streaming.texts import sentences, throttle

__all__ = [
    "Chunk",
    "PausedItem",
    "ResultItem",
    "RunStream",
    "StepEnded",
    "StepStarted",
    "StreamingAgentProtocol",
    "StreamingStep",
    "Tagged",
    "TeeOverflow",
    "UsageUpdate",
    "buffer",
    "merge",
    "partial_json",
    "sentences",
    "streaming_step",
    "tee",
    "throttle",
]
