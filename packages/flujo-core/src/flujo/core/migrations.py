"""Runs that wait while their pipeline changes: how a snapshot of the old one becomes one of the new."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .errors import ConfigurationError, SnapshotError
from .foreign import attempt, text_of
from .plan import Plan
from .snapshot import EntryData, Snapshot

Migration = Callable[[Snapshot], Snapshot]

_TOLD = ("answer", "begun", "called", "decided")
_migrations: dict[tuple[str, str], Migration] = {}


def migrate(old: str, new: str, fn: Migration) -> None:
    """Register how runs of a pipeline as it was go on in the pipeline as it is.

    Several may follow each other: from a to b, and from b to c. Of two with the same ends the later counts. The run is
    read with the types of the new pipeline: what does not fit is refused, and the run stays as it was. Its history is
    shown as it was written.

    Args:
        old: Fingerprint of the pipeline that the run was made with: `snapshot.fingerprint`.
        new: Fingerprint of the one it goes on with: `flujo.plan.fingerprint`.
        fn: Gives the new snapshot. It is handed the old one; the journal in it is empty, or what a run journaled after
            the checkpoint before its process went away. Nodes are known by their index in `plan.nodes`, and in a frame
            by their place in it: where steps were only renamed, or got other types, they are where they were.

    Raises:
        ConfigurationError: Both ends are the same.
    """
    if old == new:
        raise ConfigurationError("a migration cannot be registered", f"both fingerprints are {old!r}")
    _migrations[old, new] = fn


def accepted_fingerprints(fingerprint: str) -> list[str]:
    """The fingerprint, and those of pipelines whose runs have a migration to it, the nearest first."""
    found = [fingerprint]
    for end in found:  # grows as it goes
        found += [old for old, new in _migrations if new == end and old not in found]
    return found


def migrated(plan: Plan, snapshot: Snapshot, late: Sequence[EntryData]) -> tuple[Snapshot, Sequence[EntryData]]:
    """A snapshot and what came after it, brought to this plan; as they are where there is no way.

    Raises:
        SnapshotError: A migration raised, or what it gave is no snapshot of the same run.
    """
    ways = accepted_fingerprints(plan.fingerprint)
    if snapshot.fingerprint not in ways[1:]:
        return snapshot, late
    if any(row.kind in _TOLD for row in late):  # which step that was for is known to the old pipeline only
        why = "its process went away after it was told something: recover it with the pipeline that it was made with"
        raise SnapshotError(f"run {snapshot.run_id!r} cannot be migrated", why)
    if snapshot.mutations or any(row.mutation is not None for row in late):
        why = "it changed its pipeline: let it go on with the pipeline that it was made with"
        raise SnapshotError(f"run {snapshot.run_id!r} cannot be migrated", why)
    moved, length = snapshot.model_copy(update={"journal": list(late)}), len(late)
    while moved.fingerprint != plan.fingerprint:
        here = moved.fingerprint  # of several ways the shortest: what stands first is nearest to the end
        new = min((end for old, end in _migrations if old == here and end in ways), key=ways.index)
        given, error = attempt(_applied, _migrations[here, new], moved)
        if given is None or error is not None:
            raise _refused(snapshot, here, new, text_of(error or ValueError()))
        if given.run_id != snapshot.run_id or len(given.journal) != length:
            raise _refused(snapshot, here, new, "it gave another run, or a journal of another length")
        moved = given.model_copy(update={"fingerprint": new, "pipeline": plan.name})
    return moved.model_copy(update={"journal": []}), moved.journal


def _applied(fn: Migration, snapshot: Snapshot) -> Snapshot:
    """What it gives, checked as what comes from outside is: `model_copy` checks nothing."""
    return Snapshot.model_validate_json(fn(snapshot).sealed().model_dump_json())


def _refused(snapshot: Snapshot, old: str, new: str, why: str) -> SnapshotError:
    what = f"migration of run {snapshot.run_id!r} from {old[:12]} to {new[:12]} failed"
    return SnapshotError(what, why, "Mend the function that was given to migrate(); the run is as it was")
