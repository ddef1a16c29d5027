"""Combinators: nodes that run other nodes. They nest freely; what each runs is called its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Literal

from .errors import PipelineError
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .signatures import Question, question
from .steps import Chain, Node, Origin, is_name

MAX_ITERATIONS = 10_000
"""No loop goes on longer, whatever it asks for."""

OnFailure = Literal["cancel", "collect"]
Label = str | int | bool | None | Enum


class Flow(Node):
    """A combinator.

    Args:
        bodies: What it runs, by the word for each in a path; "" where there is one only.
        name: Name in the pipeline; that of its kind when left out.
        inputs: Where its input comes from, where that is not the node before it; several by name make a dict.

    Attributes:
        bodies: What it runs, by the word for each in a path.
    """

    def __init__(
        self, bodies: Mapping[str, PipelineLike], name: str | None, inputs: Mapping[str, Origin] | Origin | None
    ) -> None:
        kind = type(self).__name__.lower()
        if name is not None and not is_name(name):
            raise PipelineError(f"{kind} {name!r} cannot be used", ["a name is printable text and has no '/'"])
        self.name = kind if name is None else name
        self.auto_named = name is None
        self.inputs = inputs
        self.bodies: Mapping[str, Pipeline] = {
            word: _body(f"{kind} {self.name!r}", word, body) for word, body in bodies.items()
        }


class Branch(Flow):
    """Runs one of several bodies.

    Args:
        on: Asked with the input, or the input and the context; it returns the label of the case to run.
        cases: Bodies by label: text, whole number, bool, None or a member of an Enum.
        otherwise: Body for all other labels; without one such a label is a failure.
        name: Name in the pipeline.
        inputs: Where its input comes from.
    """

    def __init__(
        self,
        on: Callable[..., object],
        cases: Mapping[Label, PipelineLike],
        otherwise: PipelineLike | None = None,
        *,
        name: str | None = None,
        inputs: Mapping[str, Origin] | Origin | None = None,
    ) -> None:
        if not isinstance(cases, Mapping) or not (cases or otherwise is not None):
            raise PipelineError("branch cannot be built", ["cases= is a dict {label: body} with at least one case"])
        wrong = [label for label in cases if not isinstance(label, (str, int, Enum, type(None)))]
        if wrong:
            why = f"label {wrong[0]!r} is no text, whole number, bool, None or member of an Enum"
            raise PipelineError("branch cannot be built", [why])
        self.on: Question = question(on, "on= of a branch")
        self.labels: tuple[Label, ...] = tuple(cases)
        words = {label_word(label): body for label, body in cases.items()}
        if len(words) < len(cases) or (otherwise is not None and "otherwise" in words):
            raise PipelineError("branch cannot be built", [f"two cases read the same in a path: {', '.join(words)}"])
        self.has_otherwise: bool = otherwise is not None
        super().__init__(words if otherwise is None else {**words, "otherwise": otherwise}, name, inputs)


def label_word(label: Label) -> str:
    """A label as it stands in a path."""
    return label.name if isinstance(label, Enum) else str(label)


class Loop(Flow):
    """Runs its body again on what it gave, until it is good.

    Args:
        body: What is run; what it gives must be what it takes.
        until: Asked after each iteration with what the body gave, or that and the context; True ends the loop.
        max_iterations: Most iterations, up to 10,000.
        on_limit: "fail": reaching `max_iterations` is a failure with the last output in `partial`. "return": the loop
            gives the last output; without `until` it is a loop of a fixed number of iterations.
        name: Name in the pipeline.
        inputs: Where its input comes from.
    """

    def __init__(
        self,
        body: PipelineLike,
        until: Callable[..., object] | None = None,
        max_iterations: int = 10,
        on_limit: Literal["fail", "return"] = "fail",
        *,
        name: str | None = None,
        inputs: Mapping[str, Origin] | Origin | None = None,
    ) -> None:
        most = MAX_ITERATIONS
        whole = isinstance(max_iterations, int) and not isinstance(max_iterations, bool)
        rules = (
            (not whole or not 1 <= max_iterations <= most, f"max_iterations={max_iterations!r} must be 1 to {most}"),
            (on_limit not in ("fail", "return"), f"on_limit={on_limit!r} must be 'fail' or 'return'"),
            (until is None and on_limit == "fail", "without until= it could only fail; give one, or on_limit='return'"),
        )  # fmt: skip
        if problems := [problem for wrong, problem in rules if wrong]:
            raise PipelineError(f"loop {name or 'loop'!r} cannot be built", problems)
        self.until: Question | None = None if until is None else question(until, "until= of a loop")
        self.max_iterations: int = max_iterations
        self.on_limit: Literal["fail", "return"] = on_limit
        super().__init__({"": body}, name, inputs)


class Parallel(Flow):
    """Runs several bodies on one input at the same time, and gives a dict of what they gave, by name.

    Args:
        *branches: The bodies; each is called by its own name.
        limit: Most bodies that are open at once; None is all.
        on_failure: "cancel": a failed body cancels the others and fails the whole. "collect": its error stands in its
            place in what is given.
        name: Name in the pipeline.
        inputs: Where its input comes from.
    """

    def __init__(
        self,
        *branches: PipelineLike,
        limit: int | None = None,
        on_failure: OnFailure = "cancel",
        name: str | None = None,
        inputs: Mapping[str, Origin] | Origin | None = None,
    ) -> None:
        what = f"parallel {name or 'parallel'!r}"
        bodies = [_body(what, str(number), branch) for number, branch in enumerate(branches)]
        names = [_name_of(branch, body) for branch, body in zip(branches, bodies, strict=True)]
        double = next((one for one in names if names.count(one) > 1), None)
        if not branches or double is not None:
            why = (
                f"two branches are called {double!r}; give one another name" if branches else "give at least one branch"
            )
            raise PipelineError(f"parallel {name or 'parallel'!r} cannot be built", [why])
        self.limit, self.on_failure = _fan(f"parallel {name or 'parallel'!r}", limit, on_failure)
        super().__init__(dict(zip(names, bodies, strict=True)), name, inputs)


class Map(Flow):
    """Runs its body on each item of a list or tuple at the same time, and gives a list in the order of the items.

    Args:
        body: What is run on each item.
        limit: Most items that are worked on at once; None is all.
        on_failure: As of Parallel.
        name: Name in the pipeline.
        inputs: Where the items come from.
    """

    def __init__(
        self,
        body: PipelineLike,
        limit: int | None = None,
        on_failure: OnFailure = "cancel",
        *,
        name: str | None = None,
        inputs: Mapping[str, Origin] | Origin | None = None,
    ) -> None:
        self.limit, self.on_failure = _fan(f"map {name or 'map'!r}", limit, on_failure)
        super().__init__({"": body}, name, inputs)


class Fallback(Flow):
    """Runs the first body; where it fails the next, on the same input. A denial, an abort and a breach are no failures.

    Args:
        *bodies: What is tried, in order.
        name: Name in the pipeline.
        inputs: Where its input comes from.
    """

    def __init__(
        self, *bodies: PipelineLike, name: str | None = None, inputs: Mapping[str, Origin] | Origin | None = None
    ) -> None:
        what = f"fallback {name or 'fallback'!r}"
        pipelines = [_body(what, str(number), body) for number, body in enumerate(bodies)]
        names = [_name_of(body, pipeline) for body, pipeline in zip(bodies, pipelines, strict=True)]
        double = next((one for one in names if names.count(one) > 1), None)
        if len(bodies) < 2 or double is not None:
            why = "give two bodies or more" if len(bodies) < 2 else f"two bodies are called {double!r}; name one anew"
            raise PipelineError(f"fallback {name or 'fallback'!r} cannot be built", [why])
        super().__init__(dict(zip(names, pipelines, strict=True)), name, inputs)


def _body(what: str, word: str, body: PipelineLike) -> Pipeline:
    try:
        return as_pipeline(body)
    except PipelineError as error:
        raise PipelineError(f"body {word!r} of {what}: {error.what}", error.problems) from None


def _name_of(body: PipelineLike, pipeline: Pipeline) -> str:
    """What a body is called: a chain by its last node, for it has no name of its own."""
    return body.nodes[-1].name if isinstance(body, Chain) else pipeline.name


def _fan(what: str, limit: int | None, on_failure: OnFailure) -> tuple[int | None, OnFailure]:
    whole = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and (not whole or limit < 1):
        raise PipelineError(f"{what} cannot be built", [f"limit={limit!r} must be 1 or more, or None for all at once"])
    if on_failure not in ("cancel", "collect"):
        raise PipelineError(f"{what} cannot be built", [f"on_failure={on_failure!r} must be 'cancel' or 'collect'"])
    return limit, on_failure
