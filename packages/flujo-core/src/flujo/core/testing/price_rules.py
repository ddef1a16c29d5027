"""The rules for a `PriceBook`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from time import perf_counter
from typing import Any

from flujo.core import Price, PriceBook
from flujo.core.foreign import attempt

from .verdict import Broken, demand

UNKNOWN = "flujo-trial:no-such-model"
ODD = ("", " ", ":", "openai:", "a/b:c@d", "..", "\0", "模型", "m" * 10_000, UNKNOWN)
"""Names that no provider has, but a user may write."""

LOOKUPS = 200
SECONDS_PER_LOOKUP = 0.001
"""A lookup that was made before stands on the path of every model call: it may not read files or ask a server."""


@dataclass(frozen=True, slots=True)
class BookTrial:
    """A price book under test, and models that it is said to know."""

    book: PriceBook
    models: tuple[str, ...]

    def price(self, model: str) -> Price | None:
        """Ask the book."""
        answer: Any
        answer, error = attempt(self.book.price, model)
        if error is not None:
            raise Broken(f"price({model[:40]!r}) raised {error!r}") from error
        if inspect.iscoroutine(answer):
            answer.close()
            raise Broken("price is async; it is called where nothing can be awaited")
        demand(answer is None or isinstance(answer, Price), f"price({model[:40]!r}) gave a {type(answer).__name__}")
        return answer  # type: ignore[no-any-return]


def unknown_is_none(trial: BookTrial) -> None:
    """A model that the book does not know has the price None, so that the next book is asked, or the call refused."""
    price = trial.price(UNKNOWN)
    demand(price is None, f"price({UNKNOWN!r}) is {price!r}: a guess would be billed as if it were known")


def never_raises(trial: BookTrial) -> None:
    """Any text can be asked for; the answer is a Price or None."""
    for model in (*ODD, *trial.models):
        trial.price(model)


def known_models(trial: BookTrial) -> None:
    """The book knows the models it is said to know."""
    unknown = [model for model in trial.models if trial.price(model) is None]
    demand(not unknown, f"no price for {', '.join(unknown)}")


def amounts(trial: BookTrial) -> None:
    """Prices are finite, not negative, and Decimal: a float would round the bill."""
    for model in (*trial.models, *ODD):
        price = trial.price(model)
        if price is None:
            continue
        for name in ("input_usd", "output_usd", "request_usd"):
            amount: object = getattr(price, name)
            good = isinstance(amount, Decimal) and amount.is_finite() and amount >= 0
            demand(good, f"{name} of {model[:40]!r} is {amount!r}")
        most: object = price.max_output_tokens
        demand(most is None or (isinstance(most, int) and most > 0), f"max_output_tokens of {model!r} is {most!r}")


def stable(trial: BookTrial) -> None:
    """The same model has the same price each time, whatever was asked in between."""
    names = (*trial.models, UNKNOWN)
    first = [trial.price(model) for model in names]
    for _ in range(3):
        again = [trial.price(model) for model in reversed(names)][::-1]
        changed = [model for model, one, two in zip(names, first, again, strict=True) if one != two]
        demand(not changed, f"asked again, the price of {', '.join(changed)} is another")


def cheap_repeats(trial: BookTrial) -> None:
    """A lookup that was made before takes less than a millisecond."""
    for model in (*trial.models, UNKNOWN):
        trial.price(model)
        # the best of some rounds: on a busy machine any one may have been held up
        best = min(_seconds(trial, model) for _ in range(5)) / (LOOKUPS // 5)
        demand(best < SECONDS_PER_LOOKUP, f"price({model!r}) takes {1000 * best:.1f} ms each time")


def _seconds(trial: BookTrial, model: str) -> float:
    start = perf_counter()
    for _ in range(LOOKUPS // 5):
        trial.price(model)
    return perf_counter() - start


PriceRule = Callable[[BookTrial], None]

PRICE_RULES: tuple[PriceRule, ...] = (unknown_is_none, never_raises, known_models, amounts, stable, cheap_repeats)
