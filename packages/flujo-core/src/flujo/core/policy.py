"""What the operator of a program demands, whatever the pipeline says."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import ConfigurationError


class Policy(BaseModel):
    """Rules a run is held to.

    Attributes:
        require: Distributions whose plugins must act, e.g. `{"flujo-audit"}`; without them nothing runs.
        guard_timeout_s: Seconds a guard may take; after that the work is denied.
        observer_timeout_s: Seconds an async observer may take; after that it is cancelled and counted as failed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    require: frozenset[str] = frozenset()
    guard_timeout_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    observer_timeout_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)

    @field_validator("require", mode="before")
    @classmethod
    def _no_bare_string(cls, value: object) -> object:
        # frozenset("flujo-audit") would be eleven letters
        return {value} if isinstance(value, str) else value

    def joined(self, other: Policy) -> Policy:
        """Both policies at once: what either demands, the shorter of each time."""
        return Policy(
            require=self.require | other.require,
            guard_timeout_s=min(self.guard_timeout_s, other.guard_timeout_s),
            observer_timeout_s=min(self.observer_timeout_s, other.observer_timeout_s),
        )

    @classmethod
    def read(cls, settings: object, source: str) -> Policy:
        """Build a policy from a settings table, e.g. of a TOML file called `source`.

        Raises:
            ConfigurationError: It has an unknown or unusable entry.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, one['loc'])) or 'policy'}: {one['msg']}"
                for one in error.errors(include_input=False, include_url=False)
            ]
            raise ConfigurationError(f"policy in {source} cannot be used", "; ".join(wrong)) from error
