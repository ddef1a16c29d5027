"""A step: one unit of work, and the words with which steps are joined: `>>`, `inputs=`, `.output`, `run_input()`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints, overload

from .context import Update
from .errors import PipelineError
from .retry import RetryPolicy
from .usage import UsageLimits

__all__ = ["Chain", "Effect", "Ref", "Signature", "Step", "StepOptions", "run_input", "step"]

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

    def __getitem__(self, key: str | int) -> Ref:
        return Ref(self._source, (*self._path, key))

    def __repr__(self) -> str:
        source = self._source
        start = "run_input()" if source is None else source if isinstance(source, str) else f"{source.name}.output"
        return start + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self._path)


def ref_parts(ref: Ref) -> tuple[Step | str | None, tuple[str | int, ...]]:
    """The source (None is the run input) and the path of a Ref; a function, since any attribute is a path."""
    return ref._source, ref._path


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
        _check_options(target, options)
        if isinstance(target, Step):
            name = name or target.name
            options = {**{key: getattr(target.options, key) for key in _OPTION_NAMES}, **options}
            target = target.target
        for key in ("reads", "writes"):
            if isinstance(options.get(key), str):
                options[key] = (options[key],)
        self.target: object = target
        self.function = _function_of(target)
        self.name: str = name or _name_of(target)
        self.options: StepOptions = StepOptions(**options)
        self.is_async = inspect.iscoroutinefunction(self.function)
        self._check()

    def _check(self) -> None:
        if inspect.isasyncgenfunction(self.function) or inspect.isgeneratorfunction(self.function):
            raise PipelineError(f"step {self.name!r} cannot be used", ["it is a generator; a step returns one value"])
        if "/" in self.name or not self.name.strip():
            raise PipelineError(f"step name {self.name!r} cannot be used", ["a name is not empty and has no '/'"])
        timeout = self.options.timeout_s
        if timeout is not None and not timeout > 0:
            raise PipelineError(f"step {self.name!r} cannot be used", [f"timeout_s={timeout!r} must be above 0"])

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
            hints = get_type_hints(self.function)
            parameters = inspect.signature(self.function).parameters
        except (NameError, TypeError, ValueError) as error:
            raise PipelineError(f"step {self.name!r} cannot be read", [f"{type(error).__name__}: {error}"]) from error
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {name: p for name, p in parameters.items() if p.kind not in variadic}
        return Signature(
            {name: hints.get(name, Any) for name in named},
            frozenset(name for name, p in named.items() if p.default is not inspect.Parameter.empty),
            _unwrap_update(hints.get("return", Any)),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function, outside any run: handy in unit tests."""
        return self.function(*args, **kwargs)

    def __rshift__(self, other: Step | Chain) -> Chain:
        return Chain((self,)) >> other

    def __repr__(self) -> str:
        return f"Step({self.name!r})"


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps in a row: each gets what the one before returned. Written `a >> b >> c`."""

    steps: tuple[Step, ...] = field(default=())

    def __rshift__(self, other: Step | Chain) -> Chain:
        if isinstance(other, Chain):
            return Chain(self.steps + other.steps)
        if isinstance(other, Step):
            return Chain((*self.steps, other))
        return NotImplemented


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


def _check_options(target: object, options: Mapping[str, object]) -> None:
    for key in options:
        if key not in _OPTION_NAMES:
            close = get_close_matches(key, _OPTION_NAMES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(_OPTION_NAMES)}"
            raise PipelineError(f"step option {key!r} is unknown", [hint])


def _function_of(target: object) -> Callable[..., object]:
    if inspect.isroutine(target):
        return target
    run = getattr(target, "run", None)
    if not inspect.isclass(target) and inspect.iscoroutinefunction(run):
        return run
    if callable(target) and not inspect.isclass(target):
        call = cast("Callable[..., object]", type(target).__call__)
        return cast("Callable[..., object]", types.MethodType(call, target))
    what = f"{target!r} cannot be a step"
    raise PipelineError(what, ["a step is a function or an object with an `async def run`"])


def _name_of(target: object) -> str:
    given = getattr(target, "__name__", None) or getattr(target, "name", None) or type(target).__name__
    name = str(given)
    if name == "<lambda>":
        raise PipelineError("a lambda cannot name itself", ["give it a name: Step(..., name='...')"])
    return name


def _unwrap_update(hint: object) -> object:
    """The output type of a step that may return `Update[T]`, alone or in a union."""
    if hint is Update:
        return Any
    if get_origin(hint) is Update:
        return get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        parts = tuple(_unwrap_update(part) for part in get_args(hint))
        return Any if Any in parts else Union[parts]  # noqa: UP007 - built at run time
    return hint
