"""What an agent is made of, checked before anything is loaded."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from flujo.core import PipelineError, Price, RetryPolicy

from .checks import Validator, not_callable
from .models import problem_with

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.tools import Tool
    from pydantic_ai.toolsets import AbstractToolset

    AnyTool = Callable[..., object] | Tool[object] | AbstractToolset[object]

OutputMode = Literal["auto", "tool", "native", "prompted"]
"""How a model is made to give an output that is no text: by calling a tool, by a schema that the provider enforces, or
by asking for it in words. `auto` leaves it to what the model is known to do best."""


class AgentOptions(TypedDict, total=False):
    """What an agent may be given beside its model and its work; each as for `agent`."""

    output_mode: OutputMode
    tools: Sequence[AnyTool]
    base_url: str | None
    api_key: str | SecretStr | None
    retry: RetryPolicy | None
    max_tokens: int | None
    temperature: float | None
    fallback: str | Model | Sequence[str | Model]
    price: Price | None
    max_requests: int
    repairs: int
    context_model: type[BaseModel] | None
    reads: str | Sequence[str]


def check_names(options: AgentOptions) -> None:
    """Raise TypeError for an option that no agent has, as a call with a wrong name does."""
    if unknown := options.keys() - AgentOptions.__annotations__.keys():
        raise TypeError(f"an agent has no option {', '.join(sorted(unknown))}; see AgentOptions")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """All of an agent but itself, which is made when it first runs; the fields are the arguments of `agent`."""

    model: str | Model
    name: str
    instructions: str = ""
    output_type: Any = str  # any form that pydantic can describe: a class, a union, an alias
    output_mode: OutputMode = "auto"
    tools: tuple[AnyTool, ...] = ()
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    retry: RetryPolicy | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    fallback: tuple[str | Model, ...] = ()
    price: Price | None = None
    max_requests: int = 50
    repairs: int = 1
    validators: tuple[Validator[Any], ...] = ()
    context_model: type[BaseModel] | None = None
    reads: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: str | Model, name: str, instructions: str, output_type: Any, options: AgentOptions) -> AgentSpec:
        """The spec of an agent with these options."""
        check_names(options)
        given: dict[str, Any] = dict(options)
        key, fallback, reads = given.get("api_key"), given.get("fallback", ()), given.get("reads", ())
        given["api_key"] = key.get_secret_value() if isinstance(key, SecretStr) else key
        several = isinstance(fallback, Sequence) and not isinstance(fallback, str)
        given["fallback"] = tuple(fallback) if several else (fallback,)
        given["tools"] = _listed(given.get("tools", ()))
        given["reads"] = fields_of(reads)
        return cls(model, name, instructions, output_type, **given)

    def check(self) -> AgentSpec:
        """Return it when an agent can be made of it.

        Raises:
            PipelineError: It cannot; everything that is wrong is told at once.
        """
        problems = list(self.problems())
        if problems:
            raise PipelineError(f"agent {self.name!r} cannot be built", problems)
        return self

    def problems(self) -> Iterator[str]:
        """Everything that is wrong with it, one sentence each."""
        for model, url in ((self.model, self.base_url), *((other, None) for other in self.fallback)):
            problem = problem_with(model, url)
            if problem is not None:
                yield problem
        yield from self._text_problems()
        yield from _output_problems(self.output_type, self.output_mode)
        yield from tool_problems(self.tools)
        yield from not_callable(self.validators, "validator")
        yield from context_problems(self.context_model, self.reads)
        yield from call_problems(self.retry, self.price)
        yield from self._number_problems()

    def _text_problems(self) -> Iterator[str]:
        url = self.base_url
        if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
            yield f"base_url={url!r} is no http(s) address"
        if not isinstance(self.api_key, (str, type(None))):
            yield "api_key= is a text or a SecretStr"  # it is not shown, whatever it is
        if not (isinstance(self.name, str) and self.name):
            yield f"name={self.name!r} is no name"
        if not isinstance(self.instructions, str):
            yield "instructions= is a text"

    def _number_problems(self) -> Iterator[str]:
        heat = self.temperature
        if heat is not None and not (isinstance(heat, (int, float)) and not isinstance(heat, bool) and 0 <= heat < inf):
            yield f"temperature={heat!r} must be a number of 0 or more"
        if self.max_tokens is not None and not _whole(self.max_tokens, 1):
            yield f"max_tokens={self.max_tokens!r} must be a whole number of 1 or more"
        if not _whole(self.max_requests, 1):
            yield f"max_requests={self.max_requests!r} must be a whole number of 1 or more"
        if not _whole(self.repairs, 0):
            yield f"repairs={self.repairs!r} must be a whole number of 0 or more"


def call_problems(retry: object, price: object) -> Iterator[str]:
    """What is wrong with how calls of a model are made."""
    if not isinstance(retry, (RetryPolicy, type(None))):
        yield "retry= is a RetryPolicy(max_attempts=...)"
    if not isinstance(price, (Price, type(None))):
        yield "price= is a Price(input_usd=..., output_usd=...), in USD per token"


def tool_problems(tools: object) -> Iterator[str]:
    """What is wrong with the tools of an agent."""
    if not isinstance(tools, tuple):
        yield "tools= is a list of functions, pydantic-ai Tools and toolsets"
        return
    yield from (f"tool {tool!r} is no function, pydantic-ai Tool or toolset" for tool in tools if not _tool(tool))
    names = Counter(getattr(tool, "name", None) or getattr(tool, "__name__", None) for tool in tools)
    yield from (f"there is more than one tool {name!r}" for name, times in names.items() if name and times > 1)


def fields_of(reads: Any) -> Any:
    """The names of fields that an agent is to read, as a tuple; what is no list of them as it is, to be told."""
    return (reads,) if isinstance(reads, str) else _listed(reads)


def context_problems(model: object, reads: Sequence[str]) -> Iterator[str]:
    """What is wrong with the fields of the context that an agent is to read."""
    if not (isinstance(reads, tuple) and all(isinstance(name, str) for name in reads)):
        yield f"reads={reads!r} is no list of names of fields"
    elif model is None:
        if reads:
            yield f"reads={tuple(reads)!r} needs context_model=, the type of the run's context"
    elif not (inspect.isclass(model) and issubclass(model, BaseModel)):
        yield f"context_model={model!r} is no pydantic model"
    elif not reads:
        yield f"context_model={model.__name__} needs reads=, the fields that the model is shown"
    else:
        missing = [name for name in reads if name not in model.model_fields]
        yield from (f"reads= names {name!r}, which {model.__name__} does not have" for name in missing)


def _output_problems(output_type: Any, mode: str) -> Iterator[str]:
    if mode not in get_args(OutputMode):
        yield f"output_mode={mode!r} must be one of {get_args(OutputMode)}"
    try:
        TypeAdapter(output_type).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        reason = str(error).splitlines()[0]
        yield f"output_type={output_type!r} has no JSON schema, so no model can be asked for it: {reason}"


def _listed(given: Any) -> Any:
    """What was given as a tuple; itself where it is no list, which is told with what else is wrong."""
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else given


def _tool(tool: object) -> bool:
    cls = type(tool)
    of_pydantic_ai = any(base.__module__.startswith("pydantic_ai.") for base in cls.__mro__)
    return inspect.isroutine(tool) or (callable(tool) and not inspect.isclass(tool)) or of_pydantic_ai


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
