"""Agents and models that answer from a script, and fail the test when what happens is not what the script says."""

from __future__ import annotations

import inspect
import reprlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from flujo.core import Agent, Chain, ConfigurationError, ModelRequest, ModelResponse, ModelUsage, Step

C = TypeVar("C")

_show = reprlib.Repr()
_show.maxstring = _show.maxother = 200


@dataclass(slots=True)
class _Answers:
    """Answers for the calls that `match` picks; None picks all that nothing else picked."""

    match: object
    left: deque[object]
    given: int = 0


class Script(Generic[C]):
    """Answers given one by one. It is strict: each call needs an answer, and each answer a call.

    An answer that is an exception (or a class of one) is raised; one that can be called is called with the input, and
    awaited where it is async; any other is returned as it is.

    Attributes:
        calls: What it was called with, in order; the objects themselves, not copies.
    """

    def __init__(self, who: str, answers: Iterable[object]) -> None:
        self.calls: list[C] = []
        self._who = who
        self._rules: list[_Answers] = []
        self._rest = _Answers(None, deque(answers))
        self._unexpected: list[str] = []

    def on(self, match: object, *answers: object) -> Self:
        """Give answers for some calls only; the others take theirs from the constructor.

        Args:
            match: A value that the input must equal, or a function that says whether an input is meant. Of several
                that fit, the first with an answer left is taken.
            *answers: Answers for these calls, in order.
        """
        if not answers:
            raise ConfigurationError(f"on({_show.repr(match)}) of {self._who} cannot be used", "it has no answers")
        self._rules.append(_Answers(match, deque(answers)))
        return self

    def assert_done(self) -> None:
        """Fail unless every answer was used, and no call was without one (even if the run swallowed that error)."""
        left = [answer for part in (*self._rules, self._rest) for answer in part.left]
        problems = list(self._unexpected)
        if left:
            problems.append(f"{self._who} was not asked for {len(left)} of its answers: {_listed(left)}")
        if problems:
            raise AssertionError("; ".join(problems))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else that is what the test must show
            self.assert_done()

    def _subject(self, call: C) -> object:
        """What a value given to `on` is compared with."""
        return call

    def _take(self, call: C) -> object:
        self.calls.append(call)
        fitting = [part for part in self._rules if self._fits(part.match, call)] or [self._rest]
        for part in fitting:
            if part.left:
                part.given += 1
                return part.left.popleft()
        used = sum(part.given for part in fitting)
        what = f"call {len(self.calls)} of {self._who}, with {_show.repr(self._subject(call))}, is not in its script"
        self._unexpected.append(f"{what}: {used} answers for such a call, all used")
        raise AssertionError(self._unexpected[-1])

    def _fits(self, match: object, call: C) -> bool:
        return bool(match(call)) if callable(match) else bool(self._subject(call) == match)

    async def _play(self, call: C) -> object:
        answer = self._take(call)
        if inspect.isclass(answer) and issubclass(answer, BaseException):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(call)
            return await answer if inspect.isawaitable(answer) else answer
        return answer


def _listed(answers: list[object]) -> str:
    shown = ", ".join(_show.repr(answer) for answer in answers[:5])
    return f"{shown}, ..." if len(answers) > 5 else shown


class ScriptedAgent(Script[Any]):
    """An `Agent` that answers from a script.

    For instance::

        with ScriptedAgent("a draft", "a better draft", name="writer") as writer:
            assert Flujo(writer).run("audit logs").output == "a draft"
            assert Flujo(writer).run("audit logs").output == "a better draft"
        assert writer.calls == ["audit logs", "audit logs"]

    Args:
        *answers: See Script; an `Update` changes the context, where the step declares `writes`.
        name: Name of the step.
        inputs: Types of the inputs by parameter name. With several, a dict of them is what `calls`, `on` and
            answers see.
        output_type: Declared type of the output.
    """

    def __init__(
        self,
        *answers: object,
        name: str = "agent",
        inputs: Mapping[str, object] | None = None,
        output_type: object = Any,
    ) -> None:
        super().__init__(f"agent {name!r}", answers)
        self.name: str = name
        self.run: Callable[..., Awaitable[Any]] = self._runner(inputs or {"input": Any}, output_type)

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return Step(self) >> other

    def _runner(self, inputs: Mapping[str, object], output_type: object) -> Callable[..., Awaitable[Any]]:
        """An `async def run` with the declared parameters: the engine reads what a step takes from its signature."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature(
            [inspect.Parameter(name, kind, annotation=hint) for name, hint in inputs.items()],
            return_annotation=output_type,
        )

        async def run(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            return await self._play(next(iter(given.values())) if len(inputs) == 1 else given)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {**inputs, "return": output_type}
        return run


class ScriptedModel(Script[ModelRequest]):
    """A model that answers from a script: the `send` of `ctx.call_model`.

    For instance::

        model = ScriptedModel("three points", OSError("overloaded"))
        response = await ctx.call_model(request, model, price=Price())

    A value given to `on` is compared with the text of the request's last message; a function gets the request.

    Args:
        *responses: See Script. A text becomes a ModelResponse that counts one token per word, and is cut where it
            has more words than the request's `max_tokens`, as a provider would.
        name: Name of the model in messages.
        usage: What a text used instead. For a provider that reports nothing give a `ModelResponse(content=...)`.
    """

    def __init__(self, *responses: object, name: str = "model", usage: ModelUsage | None = None) -> None:
        super().__init__(f"model {name!r}", responses)
        self.name: str = name
        self._usage = usage

    async def __call__(self, request: ModelRequest) -> ModelResponse:
        """Answer one request."""
        answer = await self._play(request)
        if isinstance(answer, str):
            return self._told(answer, request)
        if isinstance(answer, ModelResponse):
            return answer
        raise AssertionError(f"{self._who} has an answer that is neither text nor ModelResponse: {type(answer)}")

    def _told(self, text: str, request: ModelRequest) -> ModelResponse:
        words, most = text.split(), request.max_tokens
        cut = most is not None and len(words) > most and self._usage is None
        text = " ".join(words[:most]) if cut else text
        sent = sum(len(message.content.split()) for message in request.messages)
        usage = self._usage or ModelUsage(input_tokens=sent, output_tokens=len(text.split()))
        return ModelResponse(content=text, usage=usage, model=request.model, finish_reason="length" if cut else "stop")

    def _subject(self, call: ModelRequest) -> object:
        return call.messages[-1].content if call.messages else ""
