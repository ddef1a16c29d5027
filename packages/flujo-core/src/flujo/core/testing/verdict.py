"""What a conformance suite says of an implementation."""

from __future__ import annotations

from collections.abc import Mapping


class NotConforming(AssertionError):
    """An implementation breaks rules of its protocol.

    Attributes:
        broken: Why each broken rule is held to be broken, by the rule's name.
        held: Names of the rules that held.
    """

    def __init__(self, what: str, protocol: str, broken: Mapping[str, str], held: tuple[str, ...]) -> None:
        self.broken: Mapping[str, str] = broken
        self.held: tuple[str, ...] = held
        listed = "".join(f"\n  - {rule}: {why}" for rule, why in broken.items())
        super().__init__(f"{what} breaks {len(broken)} of {len(broken) + len(held)} rules of {protocol}:{listed}")


class Broken(AssertionError):
    """A rule does not hold; the text says why."""


def demand(holds: bool, why: str) -> None:
    """Raise Broken unless it holds; unlike `assert` it also works under `python -O`."""
    if not holds:
        raise Broken(why)
