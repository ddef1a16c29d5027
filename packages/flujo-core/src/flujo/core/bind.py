"""Which parameter of a step is an input, a resource, the context or the RunContext; decided once, by annotation."""

from __future__ import annotations

import dataclasses
import inspect
from collections import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel

from .assignable import assignable, is_typed_dict, members, plain, type_name
from .callables import hints_of
from .context import RunContext
from .errors import PipelineError
from .resources import Resources, ResourceSpec
from .steps import Step

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
    """Read a step's signature against the resources and the context model of its engine.

    Raises:
        PipelineError: Its annotations cannot be read, or two parameters ask for the same thing.
    """
    signature = step.signature()
    special: dict[str, str] = {}
    inputs: dict[str, object] = {}
    resources: list[tuple[str, str]] = []
    for name, hint in signature.parameters.items():
        kind = _kind(hint, resources_type, context_model)
        if kind in special:
            why = f"parameters {special[kind]!r} and {name!r} both take {type_name(hint)}; leave one out"
            raise PipelineError(f"step {step.name!r} cannot be used", [why])
        if kind:
            special[kind] = name
        elif name in specs and _is_resource(hint, specs[name]):
            resources.append((name, name))
        else:
            inputs[name] = hint
    return Binding(
        inputs, signature.optional & frozenset(inputs), signature.output,
        special.get("ctx"), special.get("context"), special.get("resources"), tuple(resources),
    )  # fmt: skip


def _kind(hint: object, resources_type: type[Resources] | None, context_model: type[BaseModel] | None) -> str:
    """What a parameter receives beside inputs and single resources; `RunContext | None` is a RunContext too."""
    alternatives = [member for member in members(hint) if member is not type(None)]
    only = alternatives[0] if len(alternatives) == 1 else None
    if only is RunContext:
        return "ctx"
    if context_model is not None and only is context_model:
        return "context"
    if resources_type is not None and inspect.isclass(only) and issubclass(only, Resources):
        return "resources" if issubclass(resources_type, only) else ""
    return ""


def _is_resource(hint: object, spec: ResourceSpec) -> bool:
    """Whether a parameter with the name of a resource means it: its type, or a wider one, stands beside it."""
    return plain(hint) is not object and assignable(spec.type, hint)


# --- parts ------------------------------------------------------------------------------------------------------------


def part_type(hint: object, path: tuple[str | int, ...]) -> tuple[object, str]:
    """The type of a part of a value of type `hint`, and what is wrong with the path (empty when nothing is)."""
    for part in path:
        found: list[object] = []
        lacking: list[object] = []
        for member in members(hint):
            known = _part(member, part)
            (lacking if known is None else found).append(member if known is None else known)
        if not found:
            names = ", ".join(map(str, _fields(lacking[0]) or ())) or "no parts"
            return Any, f"{type_name(hint)} has no {part!r}; it has {names}"
        # an alternative without the part (`X | None`) is not known to be given: what it would lack, the run says
        hint = Any if Any in found else Union[tuple(found)]  # noqa: UP007 - built at run time
    return hint, ""


def _part(hint: object, part: str | int) -> object | None:
    """Type of a part of one alternative; `Any` where it cannot be known, None where there is no such part."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if not inspect.isclass(origin) or origin in (object, Any):
        return Any
    if origin is type(None):
        return None
    if issubclass(origin, tuple) and isinstance(part, int):
        return _item(hint, origin, arguments, part)
    known = _fields(hint)
    if known is not None:
        return known.get(part) or (Any if isinstance(part, str) and _is_attribute(origin, part) else None)
    if issubclass(origin, abc.Mapping) and len(arguments) == 2:
        return cast("object", arguments[1])
    is_item = isinstance(part, int) and issubclass(origin, abc.Sequence) and len(arguments) == 1
    return cast("object", arguments[0] if is_item else Any)


def _item(hint: object, origin: type, arguments: tuple[object, ...], place: int) -> object | None:
    """Type of one place of a tuple."""
    if not arguments:
        arguments = tuple((_fields(hint) or {}).values())  # a named tuple
    if not arguments:
        return Any if origin is tuple else None
    if Ellipsis in arguments:
        return arguments[0]
    return arguments[place] if -len(arguments) <= place < len(arguments) else None


def _fields(hint: object) -> Mapping[str | int, object] | None:
    """Fields of a model, dataclass, named tuple, typed dict or tuple; None where parts cannot be known."""
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return dict(enumerate(get_args(hint)))
    if not inspect.isclass(hint) or get_origin(hint) is not None:
        return None
    if issubclass(hint, BaseModel):
        if hint.model_config.get("extra") == "allow":
            return None
        fields: dict[str | int, object] = dict.fromkeys(hint.model_computed_fields, Any)
        fields.update((name, field.annotation) for name, field in hint.model_fields.items())
        return fields
    if dataclasses.is_dataclass(hint) or is_typed_dict(hint) or (issubclass(hint, tuple) and hasattr(hint, "_fields")):
        names = getattr(hint, "__dataclass_fields__", None) or getattr(hint, "_fields", None) or hint.__annotations__
        hints = _readable(hint)
        return {name: hints.get(name, Any) for name in names}
    return None


def _readable(hint: type) -> Mapping[str, object]:
    try:
        return hints_of(hint)
    except NameError:  # annotated with what is local elsewhere: its fields are known by name only
        return {}


def _is_attribute(cls: type, name: str) -> bool:
    """Whether it is a property or another attribute of the class; a typed dict has keys only."""
    return not issubclass(cls, dict) and hasattr(cls, name)
