"""What the bot understands, what it does and what it says: the rules it works by when no model is configured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

COMMANDS, APPROVALS = "commands", "approvals"
"""Names of the two grammars: what may be said at any time, and the answers to "shall I?"."""
YES, NO = "yes do it", "no leave it"
AGAIN, GO_ON = "say that again", "go on please"
"""Commands about the last answer, which the brain remembers."""


@dataclass
class House:
    """What there is to command. A real one would talk to the devices; this one remembers."""

    states: dict[str, str] = field(default_factory=dict)
    degrees: int = 18
    volume: int = 5
    timer: int | None = None
    shopping: list[str] = field(default_factory=lambda: ["bread", "apples", "coffee", "butter", "rice", "tomatoes"])
    log: list[str] = field(default_factory=list)
    """Every command that was carried out."""


Deed = Callable[[House], str]
"""Does something to the house and says what to answer."""


@dataclass(frozen=True)
class Rule:
    """One command."""

    phrase: str
    deed: Deed
    risky: bool = False
    """Whether a human must approve it first."""


def turn(name: str, state: str) -> Deed:
    """Bring something into a state: on, off, open, closed."""

    def deed(house: House) -> str:
        house.states[name] = state
        return f"The {name} {'are' if name.endswith('s') else 'is'} {state}."

    return deed


def put(attribute: str, value: object, answer: str) -> Deed:
    """Change something that has a value."""

    def deed(house: House) -> str:
        setattr(house, attribute, value)
        return answer

    return deed


def say(answer: str) -> Deed:
    """Change nothing."""
    return lambda house: answer


def louder(by: int) -> Deed:
    """Change the volume."""

    def deed(house: House) -> str:
        house.volume = min(10, max(0, house.volume + by))
        return f"The volume is at {house.volume}."

    return deed


def add(thing: str) -> Deed:
    """Put something on the shopping list."""

    def deed(house: House) -> str:
        house.shopping.append(thing)
        return f"I have added {thing}. There are {len(house.shopping)} things on the list."

    return deed


def tell_time(house: House) -> str:
    """Say what time it is."""
    return time.strftime("It is %H %M.")


def read_list(house: House) -> str:
    """Read the shopping list."""
    return f"There are {len(house.shopping)} things on your list. They are {', '.join(house.shopping)}. That is all."


WEATHER = (
    "{day} will be cloudy in the morning. In the afternoon the sun comes out, and it gets up to {high} degrees. "
    "At night there may be rain."
)

RULES = (
    Rule("turn on the kitchen lights", turn("kitchen lights", "on")),
    Rule("turn off the kitchen lights", turn("kitchen lights", "off")),
    Rule("turn on the bedroom lights", turn("bedroom lights", "on")),
    Rule("turn off the bedroom lights", turn("bedroom lights", "off")),
    Rule("turn on the heating", turn("heating", "on")),
    Rule("turn off the heating", turn("heating", "off")),
    Rule("set the heating to twenty degrees", put("degrees", 20, "The heating is set to twenty degrees.")),
    Rule("set a timer for five minutes", put("timer", 5, "Five minutes, from now.")),
    Rule("set a timer for ten minutes", put("timer", 10, "Ten minutes, from now.")),
    Rule("stop the timer", put("timer", None, "The timer is stopped.")),
    Rule("play some music", turn("music", "on")),
    Rule("stop the music", turn("music", "off")),
    Rule("turn the volume up", louder(1)),
    Rule("turn the volume down", louder(-1)),
    Rule("what time is it", tell_time),
    Rule("what is the weather today", say(WEATHER.format(day="Today", high="fourteen"))),
    Rule("what is the weather tomorrow", say(WEATHER.format(day="Tomorrow", high="twelve"))),
    Rule("open all windows", turn("windows", "open"), risky=True),
    Rule("close all windows", turn("windows", "closed")),
    Rule("lock the front door", turn("front door", "locked")),
    Rule("open the front door", turn("front door", "open"), risky=True),
    Rule("switch off the alarm", turn("alarm", "off"), risky=True),
    Rule("add milk to the shopping list", add("milk")),
    Rule("read my shopping list", read_list),
    Rule("call my mother", say("I am calling your mother.")),
    Rule("good night", say("Good night. Sleep well.")),
    Rule(AGAIN, say("")),
    Rule(GO_ON, say("")),
)
BY_PHRASE = {rule.phrase: rule for rule in RULES}
GRAMMARS = {COMMANDS: tuple(BY_PHRASE), APPROVALS: (YES, NO)}
