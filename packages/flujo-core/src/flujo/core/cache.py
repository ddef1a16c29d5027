"""Outputs of steps that say `cache=True`, kept while their Flujo lives."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import deepcopy

from pydantic import BaseModel

from .check import WRITTEN, adapter_of, is_whole
from .foreign import attempt
from .plan import StepNode

KEPT = 10_000
"""Most outputs that are kept; the one that was not asked for longest goes first."""

Kept = tuple[object, Mapping[str, object] | None]


class Cache:
    """Keeps outputs and context changes by step, inputs and declared context fields; all, where none is declared.

    A step is known by its place in the plan, so the key needs no word for its code; a Flujo made of changed code has a
    cache of its own. What is kept is copied in and out: no run can change what another is given.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def key(self, node: StepNode, inputs: Mapping[str, object], context: BaseModel | None) -> str | None:
        """The key of a visit; None where an input cannot be told from others by JSON, so that nothing can be kept."""
        options = node.step.options
        known = {} if context is None else type(context).model_fields
        reads = sorted(known and (options.reads or (known if node.binding.context_parameter else ())))
        parts = [_json(node.binding.inputs.get(name, object), value) for name, value in sorted(inputs.items())]
        parts += [_json(known[name].annotation, getattr(context, name)) for name in reads]
        if None in parts:
            return None
        text = json.dumps([node.index, options.version, sorted(inputs), reads, parts])
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
    """A value as text that it shares with its equals alone, with its class; None where there is none."""
    for number, kind in enumerate((hint, type(value))):
        adapter = None if isinstance(value, Iterator) else adapter_of(kind)  # writing an iterator would use it up
        text, error = (None, None) if adapter is None else attempt(adapter.dump_json, value, **WRITTEN)
        if adapter is None or text is None or error is not None:
            continue
        back, error = attempt(adapter.validate_json, text, by_name=True)
        if error is None and attempt(is_whole, value, back)[0]:
            made = json.dumps(json.loads(text), sort_keys=True)
            return f"{number}:{type(value).__module__}.{type(value).__qualname__}:{made}"
    return None
