"""The test kit of Flujo: scripted agents and models, a plugin that records, faults at named points, and suites that
hold other people's implementations to the protocols. Nothing else in `flujo.core` imports it.
"""

from .conformance import assert_conforms
from .faults import Cancellable, FaultInjector, Point
from .recording import Recorded, RecordingPlugin
from .scripts import Script, ScriptedAgent, ScriptedModel
from .verdict import NotConforming

__all__ = [
    "Cancellable",
    "FaultInjector",
    "NotConforming",
    "Point",
    "Recorded",
    "RecordingPlugin",
    "Script",
    "ScriptedAgent",
    "ScriptedModel",
    "assert_conforms",
]
