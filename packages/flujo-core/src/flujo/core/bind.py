"""Which parameter of a step is an input, a resource, the context or the RunContext; decided once, by annotation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from .assignable import assignable, is_typed_dict, members, plain, type_name
from .callables import hints_of
from .context import RunContext
from .errors import PipelineError
from .foreign import attempt
from .resources import Resources, ResourceSpec
from .steps import Step


@dataclass(frozen=True, slots=True)
class Binding:
    """How a step's parameters are filled.

    Attributes:
        inputs: Type of each input.
        optional: Inputs that have a default.
        output: Type of the output.
        resources: Parameters that receive the resource of their name.
        injects: Whether it takes anything but inputs.
        ctx_parameter: Receives the RunContext.
        context_parameter: Receives the user's context.
        all_resources_parameter: Receives the Resources object.
    """

    inputs: Mapping[str, object]
    optional: frozenset[str]
    output: object
    resources: tuple[str, ...]
    injects: bool
    ctx_parameter: str | None = None
    context_parameter: str | None = None
    all_resources_parameter: str | None = None


def bind(
    step: Step,
    specs: Mapping[str, ResourceSpec],
    resources_type: type[Resources] | None,
    context_model: type[BaseModel] | None,
) -> Binding:
    """Read a step's signature against the resources and the context model of its engine.

    Raises:
        PipelineError: Its annotations cannot be read, or two parameters ask for the same thing.
    """
    kinds: dict[object, str] = {RunContext: "ctx_parameter"}
    if context_model is not None:
        kinds[context_model] = "context_parameter"
    if resources_type is not None:
        bases = (base for base in resources_type.__mro__ if issubclass(base, Resources))
        kinds |= dict.fromkeys(bases, "all_resources_parameter")
    signature = step.signature()
    special: dict[str, str] = {}
    inputs: dict[str, object] = {}
    resources: list[str] = []
    for name, hint in signature.parameters.items():
        only = _only(hint)
        kind = kinds.get(only) if inspect.isclass(only) else None
        if kind in special:
            why = f"parameters {special[kind]!r} and {name!r} both take {type_name(hint)}; leave one out"
            raise PipelineError(f"step {step.name!r} cannot be used", [why])
        if kind is not None:
            special[kind] = name
        elif name in specs and plain(hint) is not object and assignable(specs[name].type, hint):
            resources.append(name)
        else:
            inputs[name] = hint
    injects = bool(resources or special)
    return Binding(inputs, signature.optional & inputs.keys(), signature.output, tuple(resources), injects, **special)


def _only(hint: object) -> object:
    """The one alternative of a type beside None; `X | None` asks for an X as well. `Any` when there are several."""
    alternatives = [member for member in members(hint) if member is not type(None)]
    return alternatives[0] if len(alternatives) == 1 else Any


# --- parts ------------------------------------------------------------------------------------------------------------


def part_type(hint: object, path: tuple[str | int, ...]) -> tuple[object, str]:
    """The type of a part of a value of type `hint`, and what is wrong with the path (empty when nothing is)."""
    for part in path:
        whole = _only(hint)  # of `X | None` it is the part of X: what None would lack, the run says
        if (element := _element(whole, part)) is not None:
            hint = element
            continue
        parts = _parts(whole)
        if parts is None or (part not in parts and _is_attribute(whole, part)):
            return Any, ""
        if part not in parts:
            return Any, f"{type_name(hint)} has no {part!r}; it has {', '.join(map(str, parts))}"
        hint = parts[part]
    return hint, ""


def _element(hint: object, part: str | int) -> object | None:
    """The type of what is in a list or a dict, where that is said."""
    kind, arguments = get_origin(hint), get_args(hint)
    if inspect.isclass(kind) and issubclass(kind, Mapping) and len(arguments) == 2:
        return arguments[1] if isinstance(part, str) else None
    sequence = inspect.isclass(kind) and issubclass(kind, Sequence) and isinstance(part, int)
    return arguments[0] if sequence and (kind is not tuple or arguments[1:] == (...,)) else None


def _parts(hint: object) -> Mapping[str | int, object] | None:
    """Types of the parts of a model, dataclass, named tuple, typed dict or tuple; None where they cannot be known."""
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        types = get_args(hint)
        return {place: types[place] for place in (*range(len(types)), *range(-len(types), 0))}
    if not inspect.isclass(hint):
        return None
    if issubclass(hint, BaseModel):
        open_ended = hint.model_config.get("extra") == "allow"
        return None if open_ended else {name: field.annotation for name, field in hint.model_fields.items()}
    names = getattr(hint, "__dataclass_fields__", None) or getattr(hint, "_fields", None)
    if names is None and not is_typed_dict(hint):
        return None
    # annotated with what is local elsewhere: its fields are known by name only
    hints = attempt(hints_of, hint)[0] or {}
    return {name: hints.get(name, Any) for name in names or hint.__annotations__}


def _is_attribute(hint: object, part: str | int) -> bool:
    """Whether it is a property or another attribute of the class, or a place of a named tuple."""
    if isinstance(part, int):
        return inspect.isclass(hint) and issubclass(hint, tuple)
    return inspect.isclass(hint) and not issubclass(hint, dict) and hasattr(hint, part)
