"""Resources on the other side: how a worker opens what a step needs, without any live object, and without a secret."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretBytes, SecretStr

from .codec import dump, load, unkept
from .errors import ConfigurationError, SnapshotError
from .foreign import attempt
from .imports import at, path_of
from .resources import Resource, Resources, ResourceSpec, Scope, declared
from .wire import RecipeData


@dataclass(frozen=True, slots=True)
class _Named:
    name: str

    def __call__(self) -> SecretStr:
        return SecretStr(from_environment(self.name))


def Secret(name: str, *, scope: Scope = "app") -> Any:
    """Declare a field of a `Resources` class as a secret that is known by its name: `key: SecretStr = Secret("KEY")`.

    Its value is read where the step runs, from the environment's variable of that name, or by what
    `Worker(secret=...)` says; only the name travels.
    """
    return Resource(_Named(name), scope=scope)


def from_environment(name: str) -> str:
    """The value of a variable; raises ConfigurationError where it is not set."""
    if name not in os.environ:
        raise ConfigurationError(f"secret {name!r} is missing", "the environment has no variable of that name")
    return os.environ[name]


def recipe_of(
    resources: Resources, specs: Mapping[str, ResourceSpec], names: Iterable[str]
) -> tuple[RecipeData | None, list[str]]:
    """How the resources called `names` are opened elsewhere, and what stands against it."""
    owner, problems = type(resources).__name__, list[str]()
    ref, values, secrets = path_of(type(resources)), dict[str, Any](), dict[str, str]()
    if ref is None:
        problems.append(f"class {owner} cannot be imported elsewhere; move it to the top of a module")
    for name in names:
        spec = specs[name]
        if isinstance(spec.factory, _Named):
            secrets[name] = spec.factory.name
        elif spec.factory is None and isinstance(spec.value, (SecretStr, SecretBytes)):
            problems.append(f"resource {name!r} was given a secret, which never travels; declare it: Secret('NAME')")
        elif spec.factory is None:
            values[name], error = attempt(dump, spec.type, spec.value, name)
            if error is not None or unkept(spec.type):
                why = f"resource {name!r} was given a live {type(spec.value).__name__}, which cannot travel"
                problems.append(f"{why}; declare what opens it: Resource(...)")
    return (None if ref is None or problems else RecipeData(ref=ref, values=values, secrets=secrets)), problems


def made(recipe: RecipeData, secret: Callable[[str], str]) -> Resources:
    """The resources of a recipe, ready to be opened.

    Raises:
        ImportError, AttributeError: Their class is not there.
        ConfigurationError, SnapshotError: It is no such class, or a value or a secret does not fit.
    """
    cls = at(recipe.ref)
    if not isinstance(cls, type) or not issubclass(cls, Resources):
        raise ConfigurationError(f"resources {recipe.ref!r} cannot be made", "it is no class of resources")
    types = declared(cls)
    absent = {name: None for name in types if not hasattr(cls, name)}  # what the step does not need was not sent
    if not recipe.values.keys() | recipe.secrets.keys() <= types.keys():
        raise SnapshotError(f"recipe of {recipe.ref!r} does not fit", "it names what the class does not declare")
    values = {name: load(types[name], value, f"resource {name!r}") for name, value in recipe.values.items()}
    found = {field: SecretStr(secret(name)) for field, name in recipe.secrets.items()}
    return cls(**{**absent, **values, **found})
