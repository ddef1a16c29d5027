"""Suites that tell the authors of a backend, governor, price book or store whether it keeps its protocol's promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio.lowlevel import current_token

from flujo.core import ConfigurationError, ExecutionBackend, Governor, LoopRunning, PriceBook, RunStore, UsageLimits
from flujo.core.execution import capabilities_of
from flujo.core.foreign import attempt

from .backend_rules import BACKEND_RULES, Trial
from .governor_rules import GOVERNOR_RULES, GovernorTrial
from .price_rules import PRICE_RULES, BookTrial, PriceRule
from .remote_rules import REMOTE_RULES
from .store_rules import STORE_RULES, StoreTrial
from .stream_rules import STREAM_RULES
from .verdict import NotConforming

LIMIT_S = 20.0
"""Seconds after which a rule is cancelled and held to be broken; one that holds takes well under one."""


Maker = Callable[[Callable[..., Any], str], object]


@dataclass(frozen=True, slots=True)
class _Suite:
    """The rules of one protocol, each a check by its name that raises where the rule is broken.

    `trial` makes what a rule is given, of what makes the thing and of an empty folder.
    """

    protocol: type
    method: str
    rules: Mapping[str, Callable[..., Any]]
    trial: Maker


def _named(rules: Iterable[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    return {rule.__name__: rule for rule in rules}


_SUITES = (
    _Suite(
        ExecutionBackend,
        "execute_step",
        _named((*BACKEND_RULES, *REMOTE_RULES, *STREAM_RULES)),
        lambda make, folder: Trial(make(), folder),
    ),
    _Suite(PriceBook, "price", _named(PRICE_RULES), lambda make, _: BookTrial(make(), ())),
    _Suite(RunStore, "append", _named(STORE_RULES), lambda make, _: StoreTrial(make())),
    _Suite(Governor, "reserve", _named(GOVERNOR_RULES), lambda make, _: GovernorTrial(make)),
)


def assert_conforms(
    thing: object,
    protocol: type | None = None,
    *,
    models: Collection[str] = (),
    loops: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> tuple[str, ...]:
    """Hold an implementation to every rule of its protocol.

    For instance::

        assert "success" in assert_conforms(MyBackend())
        assert "stable" in assert_conforms(MyPriceBook(), models=["acme:small"])
        assert "one_claim_wins" in assert_conforms(MyStore)
        assert "sums_are_exact" in assert_conforms(MyGovernor)

    Backends, stores and governors are tried on every event loop in turn. A class, or a function without parameters, is
    called to make a fresh object for each rule: right for what belongs to one event loop. For a governor it must be
    one, and is called with the UsageLimits that the governor shall have.

    Args:
        thing: An object with the protocol's method, or what makes one.
        protocol: ExecutionBackend, Governor, PriceBook or RunStore; None tells by the method.
        models: Models whose price the book must know.
        loops: `asyncio` and `trio`, or one of them; None is those that are installed.
        skip: Names of rules that it is known not to hold; they are missing in what is returned.

    Returns:
        Names of the rules that were held.

    Raises:
        NotConforming: Rules are broken; the message says which and why.
        ConfigurationError: An argument cannot be used.
        LoopRunning: An event loop is running here; the suite starts its own.
    """
    make = thing if inspect.isclass(thing) or inspect.isroutine(thing) else lambda: thing
    suite = _suite_of(make, protocol)
    unknown = set(skip) - suite.rules.keys()
    if unknown:
        why = f"there is no rule {', '.join(sorted(unknown))}"
        raise ConfigurationError("skip= cannot be used", why, f"The rules are: {', '.join(suite.rules)}")
    skip = {*skip, *_out_of_place(make, suite)}
    rules = {name: rule for name, rule in suite.rules.items() if name not in skip}
    if suite.protocol is PriceBook:
        broken = _broken_prices(make, rules, tuple(models))
    else:
        _refuse_inside_a_loop()
        broken = {}
        for loop in loops or _installed_loops():
            for name, why in _broken_on(loop, make, rules, suite.trial).items():
                broken[name] = f"{broken[name]}; {loop}: {why}" if name in broken else f"{loop}: {why}"
    held = tuple(name for name in rules if name not in broken)
    if broken:
        raise NotConforming(_name(thing), suite.protocol.__name__, broken, held)
    return held


def _suite_of(make: Callable[..., object], protocol: type | None) -> _Suite:
    """The suite of the protocol, or of the one whose method the thing has."""
    if protocol is None:
        sample = attempt(make)[0] or attempt(make, UsageLimits())[0]
        found = [suite for suite in _SUITES if callable(getattr(sample, suite.method, None))]
        what = f"{type(sample).__name__} cannot be checked"
    else:
        found = [suite for suite in _SUITES if suite.protocol is protocol]
        what = f"protocol={protocol!r} cannot be used"
    if not found:
        known = ", ".join(f"{suite.protocol.__name__} ({suite.method})" for suite in _SUITES)
        raise ConfigurationError(what, f"there are rules for {known}")
    return found[0]


def _out_of_place(make: Callable[..., object], suite: _Suite) -> set[str]:
    """Rules that are not asked of it: a step in another process sees no context variable, one in this no wire.

    Those about chunks are asked of what says that it hands them over.
    """
    if suite.protocol is not ExecutionBackend:
        return set()
    can = capabilities_of(attempt(make)[0])
    unasked = {"context_variables"} if can.remote else {rule.__name__ for rule in REMOTE_RULES}
    return unasked if can.streams else unasked | {rule.__name__ for rule in STREAM_RULES}


def _name(thing: object) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


def _told(error: BaseException) -> str:
    """Why a rule is broken: its own words, or what was raised while it was checked."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(part) for part in error.exceptions)
    if isinstance(error, AssertionError):
        return str(error)
    return f"it raised {error!r}"


# --- price books ------------------------------------------------------------------------------------------------------


def _broken_prices(
    make: Callable[[], object], rules: Mapping[str, Callable[..., Any]], models: tuple[str, ...]
) -> dict[str, str]:
    broken: dict[str, str] = {}
    for name, rule in rules.items():
        _, error = attempt(_try_book, make, rule, models)
        if error is not None:
            broken[name] = _told(error)
    return broken


def _try_book(make: Callable[[], Any], rule: PriceRule, models: tuple[str, ...]) -> None:
    rule(BookTrial(make(), models))


# --- backends and stores ----------------------------------------------------------------------------------------------


def _installed_loops() -> tuple[str, ...]:
    return ("asyncio", "trio") if find_spec("trio") else ("asyncio",)


def _refuse_inside_a_loop() -> None:
    try:
        current_token()
    except RuntimeError:  # none is running: as it should be
        return
    raise LoopRunning("assert_conforms", "await anyio.to_thread.run_sync(assert_conforms, backend)")


def _broken_on(
    loop: str, make: Callable[[], object], rules: Mapping[str, Callable[..., Any]], trial: Maker
) -> dict[str, str]:
    """Check each rule in a loop of its own, so that what one leaves behind does not reach the next."""
    broken: dict[str, str] = {}
    for name, rule in rules.items():
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _, error = attempt(anyio.run, partial(_check, make, rule, trial, folder), backend=loop)
        if error is not None:
            broken[name] = _told(error)
    return broken


async def _check(make: Callable[[], Any], rule: Callable[..., Any], trial: Maker, folder: str) -> None:
    with anyio.move_on_after(LIMIT_S) as limit:
        await rule(trial(make, folder))
    if limit.cancelled_caught:
        raise TimeoutError(f"no end after {LIMIT_S:g} s")
