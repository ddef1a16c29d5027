"""A step: one unit of work, and the words with which steps are joined: `>>`, `inputs=`, `.output`, `run_input()`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, overload

from .callables import function_of, hints_of, local_hints, name_of
from .context import Update
from .errors import NotSent, PipelineError
from .protocols import Agent
from .retry import RetryPolicy
from .usage import UsageLimits

Effect = Literal["pure", "idempotent", "at_most_once"]
"""What may happen to a step that a crash interrupted: run again; run again with the same key; never by itself."""


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
    """

    inputs: Mapping[str, Step | Ref | str] | None = None
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    limits: UsageLimits | None = None
    effect: Effect = "idempotent"
    version: int = 1
    validate: bool = False
    inline: bool = False


_OPTION_NAMES = tuple(StepOptions.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a step's function takes and gives, by its annotations; what is not annotated is `Any`.

    Attributes:
        parameters: Annotation of each parameter, in order.
        optional: Names of parameters with a default.
        output: Type of the output, an `Update[T]` unwrapped.
    """

    parameters: Mapping[str, object]
    optional: frozenset[str]
    output: object


class Ref:
    """A step's output, the run input, or a part of either: `page`, `tone.output.label`, `run_input()["id"]`."""

    __slots__ = ("_path", "_source")

    def __init__(self, source: Step | str | None, path: tuple[str | int, ...] = ()) -> None:
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


def ref_parts(ref: Ref) -> tuple[Step | str | None, tuple[str | int, ...]]:
    """The source (None is the run input) and the path of a Ref; a function, since any attribute is a path."""
    return ref._source, ref._path


def path_text(path: tuple[str | int, ...]) -> str:
    """A path as it is written: `.items[0].label`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def run_input() -> Ref:
    """The input of the run, as a source for `inputs=`."""
    return Ref(None)


class Step:
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
        self.target: object = target
        self.function: Callable[..., object] = function_of(target)
        self.name: str = name_of(target) if name is None else name
        self.options: StepOptions = StepOptions(**options)
        self.needs_thread: bool = not (self.options.inline or inspect.iscoroutinefunction(self.function))
        problems = _problems(self.name, self.options, self.function)
        if problems:
            raise PipelineError(f"step {self.name!r} cannot be used", problems)
        self._hints = local_hints(self.function)

    @property
    def output(self) -> Ref:
        """This step's output, or a part of it: `tone.output.label`."""
        return Ref(self)

    def signature(self) -> Signature:
        """Read the annotations of the step's function.

        Raises:
            PipelineError: An annotation names something that does not exist.
        """
        try:
            hints = hints_of(self.function) if self._hints is None else self._hints
            parameters = inspect.signature(self.function).parameters
        except NameError as error:
            why = f"its annotations name {error.name or str(error)!r}, which is not there when the pipeline is compiled"
            do = "import it at run time (not only under TYPE_CHECKING), or define it before the step"
            raise PipelineError(f"step {self.name!r} cannot be read", [f"{why}; {do}"]) from error
        except (TypeError, ValueError) as error:
            why = f"{error}; wrap it in a function with annotations"
            raise PipelineError(f"step {self.name!r} cannot be read", [why]) from error
        first = next(iter(parameters.values()), None)
        if first is not None and first.kind is inspect.Parameter.POSITIONAL_ONLY:
            why = f"parameter {first.name!r} is positional-only, and inputs are given by name"
            raise PipelineError(f"step {self.name!r} cannot be called", [f"{why}; wrap it in a function without `/`"])
        bound = self.function.keywords if isinstance(self.function, partial) else ()
        named = {name: p for name, p in parameters.items() if p.kind not in _VARIADIC and name not in bound}
        return Signature(
            {name: hints.get(name, Any) for name in named},
            frozenset(name for name, p in named.items() if p.default is not inspect.Parameter.empty),
            _unwrap_update(hints.get("return", Any)),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function, outside any run: handy in unit tests."""
        return self.function(*args, **kwargs)

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return _joined(self, other)

    def __rrshift__(self, other: Agent) -> Chain:
        return _joined(other, self)

    def __repr__(self) -> str:
        return f"Step({self.name!r})"


class Chain:
    """Steps in a row: each gets what the one before returned. Written `a >> b >> c`.

    It remembers what was joined, so that a long row is not copied by each `>>`.
    """

    __slots__ = ("_left", "_right")

    def __init__(self, left: Step | Chain, right: Step | Chain) -> None:
        self._left = left
        self._right = right

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, first to last."""
        found: list[Step] = []
        left: list[Step | Chain] = [self]
        while left:
            part = left.pop()
            if isinstance(part, Chain):
                left += (part._right, part._left)
            else:
                found.append(part)
        return tuple(found)

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return _joined(self, other)

    def __rrshift__(self, other: Agent) -> Chain:
        return _joined(other, self)

    def __repr__(self) -> str:
        return f"Chain({' >> '.join(repr(step.name) for step in self.steps)})"


def _joined(left: object, right: object) -> Chain:
    return Chain(*(as_member(side, "cannot be joined with >>") for side in (left, right)))


def as_member(part: object, cannot: str) -> Step | Chain:
    """A step or a chain as it is, an agent as a step; `cannot` says what anything else is not fit for."""
    if isinstance(part, (Step, Chain)):
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
    inputs: Mapping[str, Step | Ref | str] | None = None,
    retry: RetryPolicy | None = None,
    timeout_s: float | None = None,
    reads: tuple[str, ...] | str = (),
    writes: tuple[str, ...] | str = (),
    limits: UsageLimits | None = None,
    effect: Effect = "idempotent",
    version: int = 1,
    validate: bool = False,
    inline: bool = False,
) -> Callable[[Callable[..., object]], Step]: ...
def step(
    function: Callable[..., object] | None = None, /, **options: Any
) -> Step | Callable[[Callable[..., object]], Step]:
    """Make a function a step: `@step`, or `@step(retry=..., timeout_s=30)`; see StepOptions for the options."""

    def make(target: Callable[..., object]) -> Step:
        return Step(target, **options)

    return make if function is None else make(function)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def suggestion(name: str, known: Iterable[str]) -> str:
    """What a name that is not known was perhaps meant to be: the nearest, or else which there are."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(map(repr, names[:20])) or 'none'}"


def _names(given: object) -> tuple[object, ...]:
    """Context fields as a tuple; one alone may be given as a text."""
    return tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else (given,)


def _problems(name: object, options: StepOptions, function: Callable[..., object]) -> list[str]:
    """Everything that is wrong with the name and the options of a step."""
    retry, timeout, fields = options.retry, options.timeout_s, (*options.reads, *options.writes)
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    blocks = options.inline and not inspect.iscoroutinefunction(function)
    generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    unsafe = options.effect == "at_most_once" and isinstance(retry, RetryPolicy) and _repeats(retry)
    rules = (
        (generator, "it is a generator; a step returns one value"),
        (not _is_name(name), "a name is printable text, not empty, and has no '/'; give another: name='...'"),
        (not isinstance(options.inputs, (Mapping, type(None))), "inputs= is a dict: {'parameter': source}"),
        (not isinstance(retry, (RetryPolicy, type(None))), "retry= is a RetryPolicy(max_attempts=...)"),
        (not isinstance(options.limits, (UsageLimits, type(None))), "limits= is a UsageLimits(...)"),
        (timeout is not None and not (number and timeout > 0), f"timeout_s={timeout!r} must be seconds above 0"),
        (not all(isinstance(field, str) for field in fields), "reads= and writes= are names of context fields"),
        (options.effect not in get_args(Effect), f"effect={options.effect!r} must be one of {get_args(Effect)}"),
        (not isinstance(options.version, int), f"version={options.version!r} must be a whole number"),
        (unsafe, "it is at_most_once and would be tried again; limit the retry: retry_on=(NotSent,)"),
        (blocks and timeout is not None, "inline=True blocks the event loop, so timeout_s cannot end it; drop one"),
    )
    return [problem for wrong, problem in rules if wrong]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and bool(name.strip()) and "/" not in name


def _repeats(retry: RetryPolicy) -> bool:
    return retry.max_attempts > 1 and not all(issubclass(error, NotSent) for error in retry.retry_on)


def _unwrap_update(hint: object) -> object:
    """The output type of a step that may return `Update[T]`, alone or in a union."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if inner is Update:
        return Any
    if get_origin(inner) is Update:
        return get_args(inner)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_unwrap_update(part) for part in get_args(hint))]  # noqa: UP007 - built at run time
    return hint
