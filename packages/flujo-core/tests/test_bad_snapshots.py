"""Snapshots that are none: each is refused by name with the next act, none is executed, other runs go on.

Check 22, and the part of check 23 about versions, of our study of other engines.
"""

from __future__ import annotations

import json
import pickle
import random
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import rich_pipeline
from pydantic import BaseModel, ValidationError

from flujo.core import (
    Flujo,
    FlujoError,
    Loop,
    Map,
    MemoryStore,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    RunContext,
    Snapshot,
    SnapshotError,
    Step,
    ToolCall,
    ToolResult,
    Usage,
    step,
)

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    item: str
    amount: int


@step
async def order(item: str) -> Order:
    return Order(item=item, amount=3)


@step(pauses=True)
async def approve(value: Order) -> bool:
    raise PauseForHumanInput(f"Buy {value.amount}?", schema=bool)


async def pay(value: Order, yes: bool) -> str:
    return f"{value.item} {value.amount} {yes}"


def build(**options: Any) -> Flujo:
    yes = Step(approve, inputs={"value": order})
    return Flujo(Pipeline(order, yes, Step(pay, inputs={"value": order, "yes": yes}, **options)))


async def good() -> str:
    return (await build().run_async("tea")).snapshot().model_dump_json()


async def resumed(text: str | bytes, flujo: Flujo | None = None) -> PipelineResult:
    return await (flujo or build()).resume_async(Snapshot.model_validate_json(text), True)


def resealed(document: Any) -> str:
    """A changed snapshot as text, with the digest it would have had: what lies behind the digest's check is reached.

    One that cannot be read at all stays as it is, and is refused for that.
    """
    try:
        read = BaseModel.model_validate_json.__func__(Snapshot, json.dumps(document))  # type: ignore[attr-defined]
    except ValidationError:
        return json.dumps(document)
    return json.dumps({**document, "digest": read.computed_digest()})


async def refusal(text: str | bytes, flujo: Flujo | None = None) -> SnapshotError:
    with pytest.raises(SnapshotError) as refused:
        await resumed(text, flujo)
    error = refused.value
    assert "snapshot" in error.what
    assert error.why
    assert error.do  # it says what to do
    assert len(str(error)) < 2000
    return error


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is only there when something of a snapshot was executed or imported."""
    sentinel = tmp_path / "boom"
    source = f"import pathlib\npathlib.Path({str(sentinel)!r}).touch()\nclass Boom:\n    pass\nboom = Boom\n"
    (tmp_path / "bomb_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield sentinel
    assert not sentinel.exists()
    assert "bomb_module" not in sys.modules


# --- texts that are no snapshot ---------------------------------------------------------------------------------------

TEXTS: dict[str, str | bytes] = {
    "nothing": "",
    "blanks": " \n ",
    "no json": "not json",
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "an empty object": "{}",
    "something else's json": '{"graph_signature_hash": "abc", "messages": [], "$schemaVersion": "1.21"}',
    "binary": bytes(range(256)),
    "zeros": bytes(1000),
    "utf-16": '{"version": 1}'.encode("utf-16"),
    "yaml": "!!python/object/apply:os.system ['echo boom']",
    "xml": "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a number of many digits": "1" * 10_000,
    "an open string": '{"version": "',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
async def test_a_text_that_is_no_snapshot_is_refused(text: str | bytes) -> None:
    error = await refusal(text)
    assert "/etc" not in str(error)


async def test_a_truncated_snapshot_is_refused_wherever_it_was_cut() -> None:
    text = await good()
    for length in range(0, len(text), max(1, len(text) // 100)):
        await refusal(text[:length])


async def test_a_snapshot_with_a_flipped_bit_never_ends_in_another_error_than_ours() -> None:
    text = (await good()).encode()
    chance = random.Random(22)
    refused = 0
    for _ in range(200):
        at = chance.randrange(len(text))
        flipped = bytearray(text)
        flipped[at] ^= 1 << chance.randrange(8)
        refused += await survives(bytes(flipped))
    assert refused > 100


async def survives(text: str | bytes) -> bool:
    """Whether it is refused in our own words; raises whatever else comes of it."""
    try:
        await resumed(text)
    except FlujoError:
        return True
    return False


async def rest_of(text: str, flujo: Flujo) -> FlujoError | None:
    """Go on with a changed snapshot of the rich pipeline, to the end of its run; why it is refused, where it is."""
    try:
        snapshot = Snapshot.model_validate_json(text)
        result = await flujo.resume_async(snapshot, 2, pause=snapshot.pauses[0].id if snapshot.pauses else None)
        while result.status == "paused":
            result = await flujo.resume_async(result, 2, pause=result.pauses[0])
        result.snapshot()
    except FlujoError as error:
        return error
    return None


WRONG = (None, [], {}, "x", -1, 0, 7, 1e308, True, [[]], {"a": {}})
MISSING: Any = object()


async def test_one_without_a_digest_is_told_how_to_get_one() -> None:
    """As a store gets it: who writes one of their own meets this first."""
    kept = MemoryStore()

    async def same(value: int) -> int:
        return value

    await Flujo(Step(same), store=kept).run_async(1, run_id="run")
    snapshot = (await kept.load("run")).snapshot
    with pytest.raises(SnapshotError, match="it has no digest"):
        Snapshot.model_validate_json(snapshot.model_dump_json())
    assert Snapshot.model_validate(json.loads(snapshot.model_dump_json())) == snapshot
    assert Snapshot.model_validate_json(snapshot.sealed().model_dump_json()).run_id == "run"


async def test_a_value_that_was_changed_is_refused_by_the_digest() -> None:
    document = json.loads(await good())
    for path in list(places(document)):
        if isinstance(got(document, path), str) and path != ("digest",):
            changed = json.loads(json.dumps(document))
            put(changed, path, got(document, path) + "x")
            await refusal(json.dumps(changed))
    error = await refusal(json.dumps({**document, "pipeline": "another"}))
    assert "digest" in error.why


@pytest.mark.soak
async def test_one_that_was_read_as_a_dict_is_refused_too_where_a_value_was_changed() -> None:
    """Who keeps it as JSON of a database has a dict, which pydantic reads as well."""
    data = json.loads(await good())
    assert (await build().resume_async(Snapshot.model_validate(data), True)).status == "completed"
    data["checkpoint"]["input"] = "gold"
    with pytest.raises(SnapshotError, match="something in it was changed"):
        await build().resume_async(Snapshot.model_validate(data), True)


async def test_values_of_other_types_anywhere_in_a_snapshot_never_end_in_another_error_than_ours() -> None:
    document = json.loads(await good())
    refused = []
    for path in list(places(document)):
        for wrong in WRONG:
            changed = json.loads(json.dumps(document))
            put(changed, path, wrong)
            refused.append(await survives(resealed(renamed(changed))))
    assert refused.count(True) > 600
    assert refused.count(False) > 200


@pytest.mark.soak
async def test_wrong_or_missing_values_anywhere_in_a_run_with_all_combinators_never_end_in_another_error() -> None:
    document = json.loads((await rich_pipeline.paused()).snapshot().model_dump_json())
    flujo, refused = rich_pipeline.build(), []
    for number, path in enumerate(places(document)):
        for wrong in (WRONG[number % len(WRONG)], WRONG[(number + 5) % len(WRONG)], MISSING):
            changed = json.loads(json.dumps(document))
            if wrong is MISSING:
                del got(changed, path[:-1])[path[-1]]
            else:
                put(changed, path, wrong)
            refused.append(await rest_of(resealed(renamed(changed)), flujo))
    assert refused.count(None) > 200
    whys = [error.why for error in refused if error is not None]
    assert len(whys) > 400
    assert not any("digest does not fit" in why for why in whys)


def renamed(document: Any) -> Any:
    """The same as a run of another id, so that it is not refused because its pause is decided."""
    if isinstance(document, dict) and isinstance(document.get("run_id"), str):
        document["run_id"] = uuid.uuid4().hex
    return document


@pytest.mark.parametrize("place", [-1, 99])
async def test_what_was_spent_by_a_step_that_is_not_there_is_refused(place: int) -> None:
    snapshot = Snapshot.model_validate_json(await good())
    stand = snapshot.checkpoint
    frames = [stand.frames[0].model_copy(update={"spent_by": {place: Usage(requests=1)}})]
    changed = snapshot.model_copy(update={"checkpoint": stand.model_copy(update={"frames": frames})})
    with pytest.raises(SnapshotError, match="nodes that the pipeline does not have"):
        await build().resume_async(changed.sealed(), True)


async def test_parts_that_are_missing_or_too_many_are_refused_or_have_a_default() -> None:
    document = json.loads(await good())
    for path in list(places(document)):
        changed = json.loads(json.dumps(document))
        parent = got(changed, path[:-1])
        del parent[path[-1]]
        await survives(resealed(renamed(changed)))
    for required in ("run_id", "fingerprint", "checkpoint", "status"):
        await refusal(json.dumps({key: value for key, value in document.items() if key != required}))
    for extra in ({"__reduce__": ["os.system", ["true"]]}, {"x": 1}):
        await refusal(json.dumps({**document, **extra}))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document stands, but for the document itself."""
    if path:
        yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def got(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    got(document, path[:-1])[path[-1]] = value


# --- versions, pipelines ----------------------------------------------------------------------------------------------


async def test_a_snapshot_of_a_later_version_is_refused_and_says_to_upgrade() -> None:
    document = json.loads(await good())
    assert type(document["version"]) is int
    document["version"] += 1
    error = await refusal(json.dumps(document))
    assert str(document["version"]) in str(error)
    assert "Install" in error.do
    document["version"] = 0
    await refusal(json.dumps(document))


@pytest.mark.parametrize("other", [{"version": 2}, {"format": "kedro-session"}])
@pytest.mark.parametrize("fits", [True, False])
async def test_a_text_of_another_form_is_refused_as_that_when_it_is_read(other: dict[str, Any], fits: bool) -> None:
    """Also where it has what this form does not: that is no damage, and another text would not help."""
    document = {**json.loads(await good()), **other, **({} if fits else {"later": True})}
    with pytest.raises(SnapshotError) as caught:
        Snapshot.model_validate_json(json.dumps(document))
    assert str(next(iter(other.values()))) in str(caught.value)
    assert "later:" not in str(caught.value)


async def test_a_snapshot_of_another_pipeline_is_refused_by_fingerprint() -> None:
    error = await refusal(await good(), build(version=2))
    assert "fingerprint" in str(error) or "changed" in str(error)
    assert "pipeline" in str(error)
    foreign = (await Flujo(Loop(approve_text, until=lambda value: True)).run_async("x")).snapshot().model_dump_json()
    await refusal(foreign)


@step(pauses=True)
async def approve_text(value: str) -> str:
    raise PauseForHumanInput("Go on?", schema=str)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blanks", "string", "padded", "payload"])
async def test_a_snapshot_of_a_hundred_megabytes_is_refused_quickly(kind: str) -> None:
    text = await good()
    size = 100 * 2**20
    texts = {
        "blanks": " " * size,
        "string": '"' + "x" * size + '"',
        "padded": text + " " * size,
        "payload": text.replace('"tea"', '"' + "t" * size + '"'),
    }
    huge = texts[kind]
    assert len(huge) >= size
    started = time.process_time()
    error = await refusal(huge)
    assert time.process_time() - started < 10
    assert "MB" in str(error) or "bytes" in str(error)


# --- nothing is executed ----------------------------------------------------------------------------------------------


class Exploding:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_pickled_things_are_refused_and_not_loaded(bomb: Path, protocol: int) -> None:
    """Differs from the old package, where a pickled result could be resumed: a snapshot is JSON, always."""
    await refusal(pickle.dumps(Exploding(bomb), protocol))
    for target in (pickle.dumps(Exploding(bomb), protocol), b"", "r1", None, 7, {"version": 1}, Exploding(bomb)):
        with pytest.raises(FlujoError):
            await build().resume_async(target, True)  # type: ignore[arg-type]


EXECUTABLE = [
    {"py/object": "bomb_module.Boom"},
    {"py/reduce": [{"py/function": "bomb_module.boom"}, {"py/tuple": []}]},
    {"__reduce__": ["bomb_module.boom", []]},
    {"__class__": "bomb_module.Boom", "__module__": "bomb_module"},
    {"type": "bomb_module:Boom", "value": {}},
    {"lc": 1, "type": "constructor", "id": ["bomb_module", "Boom"], "kwargs": {}},
    "bomb_module:boom",
    "bomb_module.Boom",
    "!!python/object/apply:bomb_module.boom []",
    "gASVMAAAAAAAAACMC2JvbWJfbW9kdWxllIwEYm9vbZSTlClSlC4=",  # pickle of a call of bomb_module.boom, as base64
    "{{ bomb_module.boom() }}",
    "__import__('bomb_module')",
]


@pytest.mark.parametrize("payload", EXECUTABLE, ids=str)
async def test_what_looks_like_code_or_an_import_path_is_data_wherever_it_stands(bomb: Path, payload: Any) -> None:
    document = json.loads(await good())
    for path in list(places(document)):
        changed = json.loads(json.dumps(document))
        put(changed, path, payload)
        await survives(resealed(renamed(changed)))
        assert not bomb.exists()
    paused = await build().run_async(payload if isinstance(payload, str) else json.dumps(payload))
    result = await resumed(paused.snapshot().model_dump_json())
    assert "bomb_module" in str(result.output) or "gASV" in str(result.output)


# --- other runs -------------------------------------------------------------------------------------------------------


async def test_other_runs_go_on_while_bad_snapshots_are_refused() -> None:
    flujo = build()
    texts = [await good() for _ in range(20)]
    outputs: list[object] = []

    async def one(text: str) -> None:
        outputs.append((await resumed(text, flujo)).output)

    async def bad(text: str | bytes) -> None:
        await refusal(text, flujo)

    async with anyio.create_task_group() as group:
        for text, broken in zip(texts, [*TEXTS.values(), *(text[:-5] for text in texts)], strict=False):
            group.start_soon(bad, broken)
            group.start_soon(one, text)
    assert outputs == ["tea 3 True"] * 20


async def test_a_refused_snapshot_uses_its_pause_not_up() -> None:
    text = await good()
    await refusal(text[:-1])
    await refusal(text, Flujo(Map(approve_text)))
    assert (await resumed(text)).output == "tea 3 True"


async def add(value: int) -> int:
    return value + 1


async def uses(value: int, ctx: RunContext) -> int:
    async def send(call: ToolCall) -> ToolResult:
        return ToolResult(content=value)

    await ctx.call_tool(ToolCall(name="tool", arguments={}), send)
    return await ctx.ask("how many?", schema=int)


async def test_an_entry_whose_node_stands_in_another_scope_is_no_crash_of_a_replay() -> None:
    flujo = Flujo(Step(add, name="a") >> Step(add, name="b") >> Parallel(Step(uses), Step(add), name="fan"))
    document = json.loads((await flujo.run_async(1)).snapshot().model_dump_json())
    row = next(row for row in document["journal"] if row["kind"] == "called")
    row["node"] = 1  # that of "b", which does not stand in the frame of the branch
    replay = await flujo.replay_async(Snapshot.model_validate_json(resealed(document)))
    assert replay.divergence is not None
