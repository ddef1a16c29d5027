"""Which parameter of a step is an input, a resource, the context or the RunContext; decided once, by annotation."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from .assignable import type_name
from .context import RunContext
from .resources import Resources, ResourceSpec
from .step import Step

__all__ = ["Binding", "bind", "part_type"]


@dataclass(frozen=True, slots=True)
class Binding:
    """How a step's parameters are filled.

    Attributes:
        inputs: Type of each input.
        optional: Inputs that have a default.
        output: Type of the output.
        ctx_parameter: Receives the RunContext.
        context_parameter: Receives the user's context.
        all_resources_parameter: Receives the Resources object.
        resources: Parameter and resource name of each injected resource.
    """

    inputs: Mapping[str, object]
    optional: frozenset[str]
    output: object
    ctx_parameter: str | None
    context_parameter: str | None
    all_resources_parameter: str | None
    resources: tuple[tuple[str, str], ...]


def bind(
    step: Step,
    specs: Mapping[str, ResourceSpec],
    resources_type: type[Resources] | None,
    context_model: type[BaseModel] | None,
) -> Binding:
    """Read a step's signature against the resources and the context model of its engine."""
    signature = step.signature()
    special: dict[str, str] = {}
    inputs: dict[str, object] = {}
    resources: list[tuple[str, str]] = []
    for name, hint in signature.parameters.items():
        spec = specs.get(name)
        if hint is RunContext:
            special["ctx"] = name
        elif context_model is not None and hint is context_model:
            special["context"] = name
        elif resources_type is not None and _is_resources(hint) and issubclass(resources_type, hint):
            special["resources"] = name
        elif spec is not None and (spec.type == hint or hint is Any):
            resources.append((name, spec.name))
        else:
            inputs[name] = hint
    return Binding(
        inputs, signature.optional & frozenset(inputs), signature.output,
        special.get("ctx"), special.get("context"), special.get("resources"), tuple(resources),
    )  # fmt: skip


def _is_resources(hint: object) -> TypeGuard[type[Resources]]:
    return inspect.isclass(hint) and issubclass(hint, Resources)


def part_type(hint: object, path: tuple[str | int, ...]) -> tuple[object, str]:
    """The type of a part of a value of type `hint`, and what is wrong with the path (empty when nothing is)."""
    for part in path:
        if hint is Any or hint is object:
            return Any, ""
        known = _fields(hint)
        if known is None:
            return Any, ""
        if part not in known:
            names = ", ".join(map(str, known)) or "no fields"
            return Any, f"{type_name(hint)} has no {part!r}; it has {names}"
        hint = known[part]
    return hint, ""


def _fields(hint: object) -> Mapping[str | int, object] | None:
    """Fields of a model, dataclass, named tuple or typed dict; None where parts cannot be known."""
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return dict(enumerate(get_args(hint)))
    if not inspect.isclass(hint) or get_origin(hint) is not None:
        return None
    if issubclass(hint, BaseModel):
        fields: dict[str | int, object] = dict.fromkeys(hint.model_computed_fields, Any)
        fields.update((name, field.annotation) for name, field in hint.model_fields.items())
        return fields
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields") or typing.is_typeddict(hint):
        return {name: part for name, part in get_type_hints(hint).items()}
    return None
