"""What the operator of a program demands, whatever the pipeline says."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Policy(BaseModel):
    """Rules a run is held to.

    Attributes:
        require: Distributions whose plugins must act, e.g. `{"flujo-audit"}`; without them nothing runs.
        guard_timeout_s: Seconds a guard may take; after that the work is denied.
        observer_timeout_s: Seconds an async observer may take; after that it is cancelled and counted as failed.
        recorder_timeout_s: Seconds an async recorder may take; after that it is cancelled and has failed.
        write_timeout_s: Seconds a store may take for one write; after that the run ends `aborted`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    require: frozenset[str] = frozenset()
    guard_timeout_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    observer_timeout_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    recorder_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    write_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)

    @field_validator("require", mode="before")
    @classmethod
    def _no_bare_string(cls, value: object) -> object:
        # frozenset("flujo-audit") would be eleven letters
        return {value} if isinstance(value, str) else value
