"""What cannot be done, as an answer over HTTP: a page or JSON with what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from flujo.core import Receipt

__all__ = ["Refused", "no_such_run"]


class Refused(Exception):
    """Something that is not done.

    Attributes:
        status: HTTP status.
        what: What happened.
        why: The cause.
        do: The next act.
        receipt: How the question was answered, where it was.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        what: str,
        why: str = "",
        do: str = "",
        *,
        receipt: Receipt | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.what = what
        self.why = why
        self.do = do
        self.receipt = receipt
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(what)


def no_such_run(run_id: str) -> Refused:
    """A run that is not there and one that somebody may not see are told in the same words."""
    return Refused(404, "There is no such run for you", f"{run_id!r} is not known, or not for you to see")
