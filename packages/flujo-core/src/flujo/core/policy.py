"""What the operator of a program demands, whatever the pipeline says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError
from pydantic.functional_validators import AfterValidator, BeforeValidator

from .allowed import AllowList, allow_list, canonical, narrowed
from .errors import ConfigurationError, GuardDenied
from .foreign import text_of
from .messages import ModelRequest
from .usage import UsageLimits, lowest

# A name alone counts as one: frozenset("flujo-audit") would be eleven letters.
_one = BeforeValidator(lambda names: {names} if isinstance(names, str) else names)
_Names = Annotated[frozenset[str], _one]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]  # of a distribution, without versions


def _subject(name: str) -> str:
    if not re.match(r"(model|resource|backend):.", name):
        raise ValueError("a limit is named model:..., resource:... or backend:...")
    return name


_Subject = Annotated[str, AfterValidator(_subject)]


def _read_limits(value: object) -> object:
    try:
        return UsageLimits(**value) if isinstance(value, Mapping) else value
    except TypeError as error:  # it has a word that is none of theirs
        raise ValueError(str(error)) from None


def fits(name: str, pattern: str) -> bool:
    """Whether a name is one of those that a pattern of `*` and `&` means."""
    return all(re.fullmatch(".*".join(map(re.escape, part.split("*"))), name, re.DOTALL) for part in pattern.split("&"))


class _Fixed(dict[str, "NamedLimit"]):
    """A dict that stays as it is made; a mappingproxy could neither be copied nor sent to another process."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a policy cannot be changed")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[_Fixed], tuple[dict[str, NamedLimit]]]:
        return _Fixed, (dict(self),)


class NamedLimit(BaseModel):
    """How much of something all runs of a process may use together; who finds it used up waits in turn.

    Attributes:
        concurrency: Most calls, or attempts of steps, at a time.
        requests_per_minute: Most calls, or attempts, in any 60 seconds.
        tokens_per_minute: Most tokens in any 60 seconds: of a call, what it reserved until it is known what it used.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: int | None = Field(default=None, gt=0, strict=True)
    requests_per_minute: int | None = Field(default=None, gt=0, strict=True)
    tokens_per_minute: int | None = Field(default=None, gt=0, strict=True)


class Policy(BaseModel):
    """Rules a run is held to.

    Attributes:
        require: Distributions whose plugins must act, e.g. `{"flujo-audit"}`; without them nothing runs. Their versions
            are a matter of `allow_plugins`.
        allow_plugins: Distributions whose plugins may be imported, each with versions where these matter, e.g.
            `("flujo-audit>=1,<2",)`; None allows what `FLUJO_PLUGINS` allows. Decided before anything is imported.
        allow_models: Names of models that may be called; `*` stands for any text, `&` joins patterns that must all fit,
            as in `("openai:gpt-4o*", "openai:*&*-mini")`. None allows all.
        allow_provider_tools: Whether models may use tools that run at the provider, where no guard sees their calls.
        max_limits: The most a pipeline, a Flujo or a run may ask for. It holds for each run, even one that asks for
            nothing; who asks for more is refused.
        named_limits: Limits that all runs of this process share, by whose they are: `model:openai:*`, `resource:db` (a
            field of the Resources class), `backend:LocalBackend` (a class). All that fits one name shares its limit.
        guard_timeout_s: Seconds a guard may take; after that the work is denied.
        observer_timeout_s: Seconds an async observer may take; after that it is cancelled and counted as failed.
        recorder_timeout_s: Seconds an async recorder may take; after that it is cancelled and has failed.
        write_timeout_s: Seconds a store may take for one write; after that the run ends `aborted`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    require: Annotated[frozenset[_Name], _one, AfterValidator(lambda n: frozenset(map(canonical, n)))] = frozenset()
    allow_plugins: Annotated[_Names, AfterValidator(lambda names: _written(allow_list(sorted(names))))] | None = None
    allow_models: _Names | None = None
    allow_provider_tools: bool = Field(default=False, strict=True)
    max_limits: Annotated[InstanceOf[UsageLimits], BeforeValidator(_read_limits)] | None = None
    named_limits: Annotated[dict[_Subject, NamedLimit], AfterValidator(_Fixed)] = _Fixed()
    guard_timeout_s: float = Field(default=5.0, gt=0, strict=True, allow_inf_nan=False)
    observer_timeout_s: float = Field(default=5.0, gt=0, strict=True, allow_inf_nan=False)
    recorder_timeout_s: float = Field(default=30.0, gt=0, strict=True, allow_inf_nan=False)
    write_timeout_s: float = Field(default=30.0, gt=0, strict=True, allow_inf_nan=False)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a policy from a TOML file of its own, or from `[tool.flujo.policy]` of a `pyproject.toml`.

        Raises:
            ConfigurationError: The file cannot be read, has no policy, or has something in it that means nothing; the
                message names the line where it can.
        """
        start, why, do = 0, "it is empty", "Write what it demands, e.g. require = ['flujo-audit']"
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            table: Any = tomllib.loads(text)
            if Path(path).name == "pyproject.toml" or "tool" in table:
                start, why = max(0, text.find("[tool.flujo.policy")), "it has no [tool.flujo.policy]"
                for key in ("tool", "flujo", "policy"):
                    table = table.get(key) if isinstance(table, dict) else None
            if table:
                return cls.model_validate(table)
        except ValidationError as error:
            wrong = error.errors(include_input=False, include_url=False)
            why = "; ".join(f"{'.'.join(map(str, e['loc']))}{_line(e['loc'], text, start)}: {e['msg']}" for e in wrong)
            do = "Correct the entry"
        except (OSError, ValueError) as error:  # of TOML, the text names the line
            why, do = text_of(error), "Correct the path or the file"
        raise ConfigurationError(f"policy in {str(path)!r} cannot be used", why, do)

    @property
    def plugins(self) -> AllowList | None:
        """`allow_plugins`, by name."""
        return None if self.allow_plugins is None else allow_list(sorted(self.allow_plugins))

    def denial(self, request: ModelRequest) -> GuardDenied | None:
        """Why a model may not be called like this; None where it may."""
        if request.provider_tools and not self.allow_provider_tools:
            kinds = ", ".join(sorted(set(request.provider_tools)))
            why = f"tools that run at the provider ({kinds}) are off: no guard sees their calls, no limit their cost"
            return GuardDenied("policy", "guard_model_call", why)
        patterns = self.allow_models
        if patterns is None or any(fits(request.model, pattern) for pattern in patterns):
            return None
        why = f"model {request.model!r} is not allowed; allowed are: {', '.join(sorted(patterns)) or 'none'}"
        return GuardDenied("policy", "guard_model_call", why)

    def joined(self, other: Policy) -> Policy:
        """Both at once: what either demands, only what both allow, the shorter of each time."""
        plugins, limits = narrowed(self.plugins, other.plugins), [self.max_limits, other.max_limits]
        models = [one for one in (self.allow_models, other.allow_models) if one is not None]
        mine, theirs = self.named_limits, other.named_limits
        times = {name: min(getattr(self, name), getattr(other, name)) for name in _TIMES}
        return Policy(
            require=self.require | other.require,
            allow_plugins=None if plugins is None else _written(plugins),
            allow_models=frozenset("&".join(sorted(set(both))) for both in product(*models)) if models else None,
            allow_provider_tools=self.allow_provider_tools and other.allow_provider_tools,
            max_limits=lowest(one for one in limits if one is not None),
            named_limits={name: _least(mine.get(name), theirs.get(name)) for name in {**mine, **theirs}},
            **times,
        )


def held(policy: Policy | None) -> Policy:
    """The policy that a Flujo is given; one that demands nothing where it is given none."""
    if policy is None or isinstance(policy, Policy):
        return policy or Policy()
    raise ConfigurationError("policy= cannot be used", f"it is a {type(policy).__name__}", "Policy.load reads a file")


_TIMES = ("guard_timeout_s", "observer_timeout_s", "recorder_timeout_s", "write_timeout_s")


def _least(*given: NamedLimit | None) -> NamedLimit:
    amounts: dict[str, int] = {}
    for one in given:
        for name, amount in () if one is None else one.model_dump(exclude_none=True).items():
            amounts[name] = min(amount, amounts.get(name, amount))
    return NamedLimit(**amounts)


def _written(allowed: AllowList) -> frozenset[str]:
    return frozenset(f"{name}{versions}" for name, versions in allowed.items())


def _line(loc: tuple[int | str, ...], text: str, start: int) -> str:
    """Where an entry stands in a file, as far as a look at it can tell."""
    key = re.escape(str(loc[0])) if loc else ""
    entry = re.compile(rf"^[ \t]*[\"']?{key}[\"']?[ \t]*=|^[ \t]*\[[^\]\n]*{key}[\"']?[ \t]*\]", re.M)
    found = entry.search(text, start)
    return "" if found is None else f" (line {text.count(chr(10), 0, found.start()) + 1})"
