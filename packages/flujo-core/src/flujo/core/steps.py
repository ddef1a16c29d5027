"""A step: one unit of work, and the words with which steps are joined: `>>`, `inputs=`, `.output`, `run_input()`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args, overload

from .callables import function_of, local_hints, name_of
from .errors import NotSent, PipelineError
from .outcome import Effect
from .protocols import Agent
from .retry import RetryPolicy
from .signatures import Question, Signature, question, signature_of
from .usage import UsageLimits


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run.

    Attributes:
        inputs: Where each input comes from, by parameter name: a Step, a part of one (`tone.output.label`),
            `run_input()`, or a step's name.
        retry: How a failed attempt is made again; None is one attempt.
        timeout_s: Seconds per attempt; None is unlimited.
        reads: Context fields that travel to a remote worker.
        writes: Context fields the step may change.
        limits: Limits for this step alone, under those of the run.
        effect: What its work does to the world.
        version: Raise it when the step's meaning changes; part of the plan's fingerprint.
        validate: Check the whole output deeply against its type, not only its class.
        inline: Run a plain function on the event loop: right for trivial ones only, it blocks all other work.
        when: Asked with the step's input (a dict by name where it has several), or the input and the context; False
            skips the step: `>>` hands its input on, a declared edge gives None.
        validators: Asked with the output, or the output and the context; they return None or True where it is good,
            else False or a text, which the next attempt finds in `ctx.feedback`.
        cache: Keep the output, and give it again for equal inputs and equal context fields of `reads`, while the Flujo
            lives; where a step is given the context and names none, all must be equal. Raise `version` when the
            function's meaning changes.
        pauses: It may pause the run: what the run holds must then be serialisable when it is compiled.
        backend: Where it runs, by name; None is where the Flujo says, "local" is the process of the run.
        lease: Most that one attempt may use on a remote backend. It is reserved before it leaves, and counts in full
            where nobody knows what became of it. None is all that is left under its limits, so that under a limit of
            the run alone one such step waits for the other.
    """

    inputs: Mapping[str, Origin] | None = None
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    limits: UsageLimits | None = None
    effect: Effect = "idempotent"
    version: int = 1
    validate: bool = False
    inline: bool = False
    when: Question | None = None
    validators: tuple[Question, ...] = ()
    cache: bool = False
    pauses: bool = False
    backend: str | None = None
    lease: UsageLimits | None = None


_OPTION_NAMES = tuple(StepOptions.__dataclass_fields__)


class Ref:
    """A step's output, the run input, or a part of either: `page`, `tone.output.label`, `run_input()["id"]`."""

    __slots__ = ("_path", "_source")

    def __init__(self, source: Node | str | None, path: tuple[str | int, ...] = ()) -> None:
        self._source = source
        self._path = path

    def __getattr__(self, name: str) -> Ref:
        if name.startswith("_"):
            raise AttributeError(name)
        return Ref(self._source, (*self._path, name))

    __iter__ = None  # else Python would count up through `[0]`, `[1]`, ... without an end

    def __getitem__(self, key: str | int) -> Ref:
        if not isinstance(key, (str, int)):
            raise PipelineError(f"{self!r}[{key!r}] cannot be used", ["a part is named by a text or a whole number"])
        return Ref(self._source, (*self._path, key))

    def __repr__(self) -> str:
        source = self._source
        start = "run_input()" if source is None else source if isinstance(source, str) else f"{source.name}.output"
        return start + path_text(self._path)


def ref_parts(ref: Ref) -> tuple[Node | str | None, tuple[str | int, ...]]:
    """The source (None is the run input) and the path of a Ref; a function, since any attribute is a path."""
    return ref._source, ref._path


def path_text(path: tuple[str | int, ...]) -> str:
    """A path as it is written: `.items[0].label`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def run_input() -> Ref:
    """The input of the run, as a source for `inputs=`."""
    return Ref(None)


class Node:
    """What may stand in a pipeline: a step, a combinator, another pipeline.

    Attributes:
        name: Name in the pipeline, and in paths.
        inputs: Where its input comes from, where that is not the node before it.
        auto_named: Whether nobody chose the name; it is numbered then where another node has it.
        made_of: The nodes that became this one, if several did; its output is that of the last.
    """

    name: str
    inputs: Mapping[str, Origin] | Origin | None = None
    auto_named: bool = False
    made_of: tuple[Node, ...] = ()

    @property
    def output(self) -> Ref:
        """This node's output, or a part of it: `tone.output.label`."""
        return Ref(self)

    def __rshift__(self, other: Node | Chain | Agent) -> Chain:
        return _joined(self, other)

    def __rrshift__(self, other: Agent) -> Chain:
        return _joined(other, self)

    def fused(self, other: Node) -> Node | None:
        """The one node that this and the one after it in a chain make; None where each stays itself."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


Origin = Node | Ref | str
"""Where an input comes from: a node, a part of its output, the run input, or a node's name."""


class Step(Node):
    """One unit of work: a function or an object with `async def run`, and how it is to be run.

    Args:
        target: An `async def`, a plain `def` (runs in a worker thread), an object with `async def run`, or a Step
            to be taken over under another name or with other options.
        name: Name in the pipeline; the function's when left out. Lambdas need one.
        **options: See StepOptions.
    """

    def __init__(self, target: object, *, name: str | None = None, **options: Any) -> None:
        for key in options:
            if key not in _OPTION_NAMES:
                raise PipelineError(f"step option {key!r} is unknown", [suggestion(key, _OPTION_NAMES)])
        if isinstance(target, Step):
            name = target.name if name is None else name
            options = {**{key: getattr(target.options, key) for key in _OPTION_NAMES}, **options}
            target = target.target
        for key in ("reads", "writes"):
            options[key] = _names(options.get(key, ()))
        where = f"step {name or getattr(target, '__name__', '')!r}"
        options["when"] = _asked(options.get("when"), f"when= of {where}")
        checks = _names(options.get("validators", ()))
        options["validators"] = tuple(question(one, f"validators= of {where}") for one in checks)
        self.target: object = target
        self.function: Callable[..., object] = function_of(target)
        self.name: str = name_of(target) if name is None else name
        self.options: StepOptions = StepOptions(**options)
        self.inputs: Mapping[str, Origin] | Origin | None = self.options.inputs
        self.needs_thread: bool = not (self.options.inline or inspect.iscoroutinefunction(self.function))
        problems = _problems(self.name, self.options, self.function)
        if problems:
            raise PipelineError(f"step {self.name!r} cannot be used", problems)
        self._hints = local_hints(self.function)

    def signature(self) -> Signature:
        """Read the annotations of the step's function.

        Raises:
            PipelineError: An annotation names something that does not exist.
        """
        return signature_of(self.name, self.function, self._hints)

    def cache(self) -> Step:
        """The same step, whose output is kept and given again for equal inputs; see `StepOptions.cache`."""
        return Step(self, cache=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function, outside any run: handy in unit tests."""
        return self.function(*args, **kwargs)


class Chain:
    """Nodes in a row: each gets what the one before returned. Written `a >> b >> c`.

    It remembers what was joined, so that a long row is not copied by each `>>`.
    """

    __slots__ = ("_left", "_right")

    def __init__(self, left: Node | Chain, right: Node | Chain) -> None:
        self._left = left
        self._right = right

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, first to last."""
        found: list[Node] = []
        left: list[Node | Chain] = [self]
        while left:
            part = left.pop()
            if isinstance(part, Chain):
                left += (part._right, part._left)
            elif found and (one := found[-1].fused(part)) is not None:
                found[-1] = one
            else:
                found.append(part)
        return tuple(found)

    def __rshift__(self, other: Node | Chain | Agent) -> Chain:
        return _joined(self, other)

    def __rrshift__(self, other: Agent) -> Chain:
        return _joined(other, self)

    def __repr__(self) -> str:
        return f"Chain({' >> '.join(repr(node.name) for node in self.nodes)})"


def _joined(left: object, right: object) -> Chain:
    return Chain(*(as_member(side, "cannot be joined with >>") for side in (left, right)))


def as_member(part: object, cannot: str) -> Node | Chain:
    """A node or a chain as it is, an agent as a step; `cannot` says what anything else is not fit for."""
    if isinstance(part, (Node, Chain)):
        return part
    if not inspect.isclass(part) and inspect.iscoroutinefunction(getattr(part, "run", None)):
        return Step(part)
    what = f"{getattr(part, '__name__', type(part).__name__)!r} {cannot}"
    why = "it is neither a step nor a chain; wrap a function: Step(function), or mark it with @step"
    raise PipelineError(what, [why])


@overload
def step(function: Callable[..., object], /) -> Step: ...
@overload
def step(
    *,
    name: str | None = None,
    inputs: Mapping[str, Origin] | None = None,
    retry: RetryPolicy | None = None,
    timeout_s: float | None = None,
    reads: tuple[str, ...] | str = (),
    writes: tuple[str, ...] | str = (),
    limits: UsageLimits | None = None,
    effect: Effect = "idempotent",
    version: int = 1,
    validate: bool = False,
    inline: bool = False,
    when: Callable[..., object] | None = None,
    validators: Iterable[Callable[..., object]] | Callable[..., object] = (),
    cache: bool = False,
    pauses: bool = False,
    backend: str | None = None,
    lease: UsageLimits | None = None,
) -> Callable[[Callable[..., object]], Step]: ...
def step(
    function: Callable[..., object] | None = None, /, **options: Any
) -> Step | Callable[[Callable[..., object]], Step]:
    """Make a function a step: `@step`, or `@step(retry=..., timeout_s=30)`; see StepOptions for the options."""

    def make(target: Callable[..., object]) -> Step:
        return Step(target, **options)

    return make if function is None else make(function)


def suggestion(name: str, known: Iterable[str]) -> str:
    """What a name that is not known was perhaps meant to be: the nearest, or else which there are."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(map(repr, names[:20])) or 'none'}"


def _asked(function: object, where: str) -> Question | None:
    return None if function is None else question(function, where)


def _names(given: object) -> tuple[object, ...]:
    """Context fields or validators as a tuple; one alone may be given as it is."""
    return tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else (given,)


def _problems(name: object, options: StepOptions, function: Callable[..., object]) -> list[str]:
    """Everything that is wrong with the name and the options of a step."""
    retry, timeout, fields = options.retry, options.timeout_s, (*options.reads, *options.writes)
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    blocks = options.inline and not inspect.iscoroutinefunction(function)
    generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    mixed = options.cache and options.effect == "at_most_once"
    unsafe = options.effect == "at_most_once" and isinstance(retry, RetryPolicy) and _repeats(retry)
    rules = (
        (generator, "it is a generator; a step returns one value"),
        (not is_name(name), "a name is printable text, not empty, and has no '/'; give another: name='...'"),
        (not isinstance(options.inputs, (Mapping, type(None))), "inputs= is a dict: {'parameter': source}"),
        (not isinstance(retry, (RetryPolicy, type(None))), "retry= is a RetryPolicy(max_attempts=...)"),
        (not isinstance(options.limits, (UsageLimits, type(None))), "limits= is a UsageLimits(...)"),
        (
            not isinstance(options.backend, (str, type(None))),
            "backend= is the name of one; Flujo(backend=...) gives it",
        ),
        (not isinstance(options.lease, (UsageLimits, type(None))), "lease= is a UsageLimits(...)"),
        (timeout is not None and not (number and timeout > 0), f"timeout_s={timeout!r} must be seconds above 0"),
        (not all(isinstance(field, str) for field in fields), "reads= and writes= are names of context fields"),
        (options.effect not in get_args(Effect), f"effect={options.effect!r} must be one of {get_args(Effect)}"),
        (mixed, "it is at_most_once, so its output cannot stand for doing it again; drop cache=True"),
        (not isinstance(options.version, int), f"version={options.version!r} must be a whole number"),
        (unsafe, "it is at_most_once and would be tried again; limit the retry: retry_on=(NotSent,)"),
        (blocks and timeout is not None, "inline=True blocks the event loop, so timeout_s cannot end it; drop one"),
    )
    return [problem for wrong, problem in rules if wrong]


def is_name(name: object) -> bool:
    """Whether it may be the name of a node: it stands in paths."""
    return isinstance(name, str) and name.isprintable() and bool(name.strip()) and "/" not in name


def _repeats(retry: RetryPolicy) -> bool:
    return retry.max_attempts > 1 and not all(issubclass(error, NotSent) for error in retry.retry_on)
