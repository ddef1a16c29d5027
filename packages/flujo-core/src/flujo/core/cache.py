"""Outputs of steps that say `cache=True`, kept while their Flujo lives."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy

from pydantic import BaseModel

from .check import adapter_of
from .foreign import attempt
from .plan import StepNode

KEPT = 10_000
"""Most outputs that are kept; the one that was not asked for longest goes first."""

Kept = tuple[object, Mapping[str, object] | None]


class Cache:
    """Keeps outputs and context changes by step, inputs and declared context fields.

    A step is known by its place in the plan, so the key needs no word for its code; a Flujo made of changed code has a
    cache of its own. What is kept is copied in and out: no run can change what another is given.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def key(self, node: StepNode, inputs: Mapping[str, object], context: BaseModel | None) -> str | None:
        """The key of a visit; None where an input cannot be written as JSON, so that nothing can be kept."""
        options = node.step.options
        reads = {name: getattr(context, name) for name in options.reads} if context is not None else {}
        parts = [_json(node.binding.inputs.get(name, object), value) for name, value in (*sorted(inputs.items()),)] + [
            _json(type(value), value) for _, value in sorted(reads.items())
        ]
        if None in parts:
            return None
        text = json.dumps([node.index, options.version, sorted(inputs), sorted(reads), parts])
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, key: str) -> Kept | None:
        """What was kept under `key`, as a copy."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return deepcopy(self._kept[key])

    def keep(self, key: str, output: object, changes: Mapping[str, object] | None) -> None:
        """Keep a copy; what cannot be copied is not kept."""
        made, error = attempt(deepcopy, (output, changes))
        if made is not None and error is None:
            self._kept[key] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _json(hint: object, value: object) -> str | None:
    """A value as text that equal values share, with its class; None where there is none."""
    for kind in (hint, type(value)):
        adapter = adapter_of(kind)
        text, error = (None, None) if adapter is None else attempt(adapter.dump_json, value, warnings="error")
        if text is not None and error is None:
            made = json.dumps(json.loads(text), sort_keys=True)
            return f"{type(value).__module__}.{type(value).__qualname__}:{made}"
    return None
