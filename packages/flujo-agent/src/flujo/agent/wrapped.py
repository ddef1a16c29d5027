"""Agents that were made with pydantic-ai. Importing this imports pydantic-ai."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_type_hints

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.models import Model
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.tools import DeferredToolRequests

from flujo.core import Price, RetryPolicy

from .faults import narrowed
from .governed import CallOptions
from .running import Runner

T = TypeVar("T")


def is_agent(agent: object) -> bool:
    """Whether it is an agent of pydantic-ai."""
    return isinstance(agent, AbstractAgent)


def runner_for(agent: AbstractAgent[object, T], retry: RetryPolicy | None, price: Price | None) -> Runner[T]:
    """What runs it; `price` holds for whichever of its models is asked."""
    models = [agent.model] if isinstance(agent.model, Model) else []
    return Runner(agent, models, wrapped=CallOptions(narrowed(retry), price, record=True))


def given_type(agent: AbstractAgent[object, T]) -> object:
    """The type of an agent's output, as an annotation."""
    return _annotation(agent.output_type)


def _annotation(spec: object) -> object:
    if isinstance(spec, ToolOutput):
        return _annotation(spec.output)
    if isinstance(spec, (NativeOutput, PromptedOutput)):
        return _annotation(spec.outputs)
    if isinstance(spec, TextOutput):
        return _annotation(spec.output_function)
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        given = [one for one in spec if one is not DeferredToolRequests]  # humans decide on those
        return Union[tuple(_annotation(one) for one in given)]  # noqa: UP007 - built at run time
    if inspect.isroutine(spec):
        return get_type_hints(spec).get("return", Any)
    return spec
