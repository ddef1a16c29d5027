"""AgentBuilder: an agent as a pipeline, said part by part."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from flujo.core import (
    Allow,
    ConfigurationError,
    Deny,
    FlujoError,
    GuardDenied,
    Pipeline,
    PipelineError,
    Price,
    RetryPolicy,
    Step,
    UsageLimits,
)

from .agents import of_spec
from .checks import Validator, name_of, not_callable
from .models import short_name
from .prompts import prompt_of
from .spec import AgentSpec, OutputMode

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from .spec import AnyTool

__all__ = ["AgentBuilder", "PromptGuard"]

T = TypeVar("T")
U = TypeVar("U")

PromptGuard = Callable[[object], Allow | Deny | Awaitable[Allow | Deny]]
"""Looks at what an agent is about to be asked. Whatever it does but return `Allow()` denies."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was said so far; nothing is checked before `build`."""

    model: Any = None
    name: str | None = None
    role: str = ""
    instructions: str = ""
    output_type: Any = str
    output_mode: OutputMode = "auto"
    tools: tuple[Any, ...] = ()
    examples: tuple[tuple[object, object], ...] = ()
    validators: tuple[Any, ...] = ()
    guards: tuple[Any, ...] = ()
    fallback: tuple[Any, ...] = ()
    limits: tuple[Any, Any, Any] | None = None
    retry: Any = None
    max_tokens: Any = None
    temperature: Any = None
    timeout_s: Any = None
    repairs: Any = 1
    base_url: Any = None
    api_key: Any = None
    price: Any = None
    context_model: Any = None
    reads: tuple[Any, ...] = ()


class AgentBuilder(Generic[T]):
    """An agent as a pipeline, said part by part.

    Each method returns a new builder and leaves the old one as it is, so that several can have a common start. Nothing
    is checked before `build`, which tells everything that is wrong or missing at once.

    Args:
        model: As for `agent`.
        name: Name of the pipeline and of the agent's step; left out, the model's.
        base_url: As for `agent`.
        api_key: As for `agent`.
        price: As for `agent`.
    """

    __slots__ = ("_parts",)

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
        price: Price | None = None,
    ) -> None:
        key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        self._parts = _Parts(model=model, name=name, base_url=base_url, api_key=key, price=price)

    def _with(self, **parts: Any) -> AgentBuilder[Any]:
        made: AgentBuilder[Any] = object.__new__(AgentBuilder)
        made._parts = replace(self._parts, **parts)
        return made

    # --- the parts --------------------------------------------------------------------------------------------------

    def model(self, model: str | Model, *, base_url: str | None = None) -> AgentBuilder[T]:
        """Which model is asked."""
        return self._with(model=model, base_url=base_url)

    def named(self, name: str) -> AgentBuilder[T]:
        """Name of the pipeline and of the agent's step."""
        return self._with(name=name)

    def role(self, role: str) -> AgentBuilder[T]:
        """Who the model is to be, as in `a careful editor`."""
        return self._with(role=role)

    def instructions(self, text: str) -> AgentBuilder[T]:
        """What the model is to do."""
        return self._with(instructions=text)

    def output(self, output_type: type[U], *, mode: OutputMode = "auto") -> AgentBuilder[U]:
        """What the agent gives; `mode` is how the model is made to give it."""
        return self._with(output_type=output_type, output_mode=mode)

    def tools(self, *tools: AnyTool) -> AgentBuilder[T]:
        """Further tools that the model may call."""
        return self._with(tools=(*self._parts.tools, *tools))

    def example(self, prompt: object, output: T) -> AgentBuilder[T]:
        """A further example of a prompt and the right output; shown to the model with the instructions."""
        return self._with(examples=(*self._parts.examples, (prompt, output)))

    def validate(self, *validators: Validator[T]) -> AgentBuilder[T]:
        """Further functions that look at the output; what they find goes back to the model, `repairs` times."""
        return self._with(validators=(*self._parts.validators, *validators))

    def reads(self, context_model: type[BaseModel], *fields: str) -> AgentBuilder[T]:
        """Fields of the run's context that the model is shown."""
        return self._with(context_model=context_model, reads=fields)

    def repairs(self, times: int) -> AgentBuilder[T]:
        """How often an output that does not fit, or that a validator refuses, goes back to the model."""
        return self._with(repairs=times)

    def guard(self, *guards: PromptGuard) -> AgentBuilder[T]:
        """Further guards of the prompt: a step before the agent, which denies the run unless all of them allow."""
        return self._with(guards=(*self._parts.guards, *guards))

    def limits(
        self, *, usd: float | str | None = None, tokens: int | None = None, requests: int | None = None
    ) -> AgentBuilder[T]:
        """Limits of each run of the pipeline, under those of the Flujo: USD, tokens, requests."""
        return self._with(limits=(usd, tokens, requests))

    def retry(self, policy: RetryPolicy | int) -> AgentBuilder[T]:
        """How a failed request is made again: a policy, or the number of all attempts."""
        return self._with(retry=policy)

    def fallback(self, *models: str | Model) -> AgentBuilder[T]:
        """Further models that are asked when the ones before fail."""
        return self._with(fallback=(*self._parts.fallback, *models))

    def max_tokens(self, most: int) -> AgentBuilder[T]:
        """Most output tokens of each request."""
        return self._with(max_tokens=most)

    def temperature(self, temperature: float) -> AgentBuilder[T]:
        """Sampling temperature."""
        return self._with(temperature=temperature)

    def timeout(self, seconds: float) -> AgentBuilder[T]:
        """Seconds after which the agent's step fails."""
        return self._with(timeout_s=seconds)

    # --- the whole --------------------------------------------------------------------------------------------------

    def build(self) -> Pipeline:
        """The pipeline: the guards' step, if there are guards, and the agent's.

        Raises:
            PipelineError: Something is wrong or missing; all of it is told at once.
        """
        parts = self._parts
        name = ("agent" if parts.model is None else short_name(parts.model)) if parts.name is None else parts.name
        problems: list[str] = []
        limits, retry = _limits(parts.limits, problems), _retry(parts.retry, problems)
        spec = _spec(parts, name, retry, problems)
        problems += [*spec.problems(), *_step_problems(name, parts.timeout_s), *_example_problems(parts)]
        step = None if problems else _step(spec, parts.timeout_s, problems)
        if problems or step is None:
            raise PipelineError(f"agent {name!r} cannot be built", problems)
        member = _guard_step(name, parts.guards) >> step if parts.guards else step
        return Pipeline(member, name=name, limits=limits)

    def __repr__(self) -> str:
        return f"AgentBuilder({self._parts.model!r})"


def _spec(parts: _Parts, name: str, retry: RetryPolicy | None, problems: list[str]) -> AgentSpec:
    if not (parts.role or parts.instructions):
        problems.append("what it is to do is missing: .instructions('...'), or .role('...')")
    problems += not_callable(parts.guards, "guard")
    return AgentSpec(
        model=parts.model,
        name=name,
        instructions=_instructions(parts, problems),
        output_type=parts.output_type,
        output_mode=parts.output_mode,
        tools=parts.tools,
        base_url=parts.base_url,
        api_key=parts.api_key,
        retry=retry,
        max_tokens=parts.max_tokens,
        temperature=parts.temperature,
        fallback=parts.fallback,
        price=parts.price,
        repairs=parts.repairs,
        validators=parts.validators,
        context_model=parts.context_model,
        reads=parts.reads,
    )


def _instructions(parts: _Parts, problems: list[str]) -> str:
    for word in ("role", "instructions"):
        if not isinstance(getattr(parts, word), str):
            problems.append(f".{word}(...) takes a text")
            return ""
    said = [f"You are {parts.role.rstrip('.')}." if parts.role else "", parts.instructions]
    for prompt, output in parts.examples:
        try:
            shown = prompt_of(prompt, "example"), prompt_of(output, "example")
        except ConfigurationError as error:
            problems.append(f"an example cannot be shown: {error.why}")
            continue
        said.append(f"Example of a prompt:\n{shown[0]}\nThe right answer to it:\n{shown[1]}")
    return "\n\n".join(part for part in said if part)


def _example_problems(parts: _Parts) -> Iterator[str]:
    """What is wrong with the outputs of examples: a model that was shown them would give what is refused."""
    try:
        adapter = TypeAdapter(parts.output_type)
    except PydanticUserError:  # told with the output type
        return
    for number, (_, output) in enumerate(parts.examples, 1):
        try:
            adapter.validate_python(output)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            yield f"the output of example {number} does not fit the output type: {first['msg']}"


def _step_problems(name: object, timeout_s: Any) -> list[str]:
    """What is wrong with what is said of the agent's step, told before there is an agent."""
    if not isinstance(name, str):
        return []  # the agent itself tells
    try:
        Step(_nothing, name=name, timeout_s=timeout_s)
    except PipelineError as error:
        return [*error.problems]
    return []


async def _nothing() -> None:
    """Stands for an agent."""


def _limits(given: tuple[Any, Any, Any] | None, problems: list[str]) -> UsageLimits | None:
    if given is None:
        return None
    try:
        return UsageLimits(*given)
    except ConfigurationError as error:
        problems.append(f".limits(...): {error}")
        return None


def _retry(given: Any, problems: list[str]) -> RetryPolicy | None:
    if given is None or isinstance(given, RetryPolicy):
        return given
    try:
        return RetryPolicy(max_attempts=given)
    except ConfigurationError as error:
        problems.append(f".retry({given!r}): {error.why}")
        return None


def _step(spec: AgentSpec, timeout_s: float | None, problems: list[str]) -> Step | None:
    try:
        return Step(of_spec(spec), timeout_s=timeout_s, reads=spec.reads)
    except PipelineError as error:
        problems += error.problems
        return None


def _guard_step(name: str, guards: tuple[PromptGuard, ...]) -> Step:
    async def guard(prompt: object) -> object:
        for one in guards:
            reason = await _denied(one, prompt)
            if reason is not None:
                raise GuardDenied(name_of(one), "guard of the prompt", reason)
        return prompt

    return Step(guard, name=f"{name}-guard")


async def _denied(guard: PromptGuard, prompt: object) -> str | None:
    """Why a guard does not let a prompt through; None when it does."""
    try:
        answer = guard(prompt)
        verdict = await answer if inspect.isawaitable(answer) else answer
    except FlujoError:
        raise
    except Exception as error:  # a guard that fails has not allowed: as everywhere, that denies
        return f"it failed with {type(error).__name__}"
    if isinstance(verdict, Allow):
        return None
    return verdict.reason if isinstance(verdict, Deny) else f"it answered {type(verdict).__name__}, not Allow or Deny"
