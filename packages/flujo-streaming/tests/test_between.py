"""What stands between streaming steps, shares a stream, or joins several."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from pydantic import BaseModel, ValidationError

from flujo.core import Chunk, ConfigurationError, Flujo
from flujo.streaming import (
    StreamingStep,
    TeeOverflow,
    buffer,
    merge,
    partial_json,
    sentences,
    streaming_step,
    tee,
    throttle,
)

pytestmark = pytest.mark.anyio


class Source:
    def __init__(self, number: int = 1000, error: Exception | None = None) -> None:
        self.number = number
        self.error = error
        self.made = self.closed = 0

    async def numbers(self, given: object = None) -> AsyncIterator[int]:
        try:
            for number in range(self.number):
                await checkpoint()
                self.made += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


@streaming_step
async def passed(chunks: AsyncIterator[int]) -> AsyncIterator[int]:
    async for chunk in chunks:
        yield chunk


async def texts(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


def told(*pieces: str) -> StreamingStep:
    async def tell(given: object) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    return StreamingStep(tell)


async def values(flujo: Flujo, given: object = "") -> list[object]:
    async with flujo.stream_async(given) as stream:
        return [item.value async for item in stream if isinstance(item, Chunk)]


# --- buffer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 16])
async def test_check_16_a_buffer_lets_the_source_ahead_exactly_so_far(size):
    source = Source()
    seen, leads = 0, []
    async with Flujo(StreamingStep(source.numbers) >> buffer(size) >> passed).stream_async("") as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                assert item.value == seen
                seen += 1
                await anyio.sleep(0.002)
                leads.append(source.made - seen)
                if seen == 40:
                    break
    assert max(leads) == size
    assert source.closed == 1


async def test_a_buffer_hands_on_the_end_and_an_error():
    source = Source(5)
    assert await values(Flujo(StreamingStep(source.numbers) >> buffer(2))) == [0, 1, 2, 3, 4]
    source = Source(3, error=LookupError("gone"))
    async with Flujo(StreamingStep(source.numbers) >> buffer(2)).stream_async("") as stream:
        items = [item async for item in stream]
    assert [item.value for item in items if isinstance(item, Chunk)] == [0, 1, 2]
    assert isinstance(stream.result.error.__cause__, LookupError)
    assert source.closed == 1


async def test_check_16_a_buffer_is_cancelled_from_both_sides():
    source = Source()
    flujo = Flujo(StreamingStep(source.numbers) >> buffer(3))
    with anyio.move_on_after(0.05):
        async with flujo.stream_async("") as stream:
            async for _ in stream:
                await anyio.sleep(0.01)
    assert source.closed == 1

    async def stuck(given: object) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(60)
        finally:
            closed.append(1)

    closed: list[int] = []
    flujo = Flujo(StreamingStep(stuck, timeout_s=0.05) >> buffer(3))
    async with flujo.stream_async("") as stream:
        assert [item async for item in stream][-1].result.status == "failed"
    assert closed == [1]


@pytest.mark.parametrize("size", [0, -1, True, 2.5])
async def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigurationError, match="whole number above 0"):
        buffer(size)


# --- tee --------------------------------------------------------------------------------------------------------------


async def test_check_14_every_branch_of_a_tee_sees_all_and_the_fast_waits_for_the_slow():
    source = Source(60)
    seen: dict[str, list[int]] = {"fast": [], "slow": []}
    leads = []

    async def read(name: str, branch: AsyncIterator[int], pause: float) -> None:
        async for number in branch:
            seen[name].append(number)
            leads.append(len(seen["fast"]) - len(seen["slow"]))
            await anyio.sleep(pause)

    async with tee(source.numbers(), size=4) as (fast, slow), anyio.create_task_group() as group:
        group.start_soon(read, "fast", fast, 0)
        group.start_soon(read, "slow", slow, 0.002)
    assert seen["fast"] == seen["slow"] == list(range(60))
    assert max(leads) <= 6
    assert source.closed == 1


@pytest.mark.parametrize("policy", ["drop_oldest", "latest", "error"])
async def test_check_14_the_policies_of_a_tee(policy):
    source = Source(100)
    slow_seen: list[int] = []
    errors: list[Exception] = []

    async with tee(source.numbers(), size=3, policy=policy) as (fast, slow):
        slow_seen.append(await anext(slow))
        assert [number async for number in fast] == list(range(100))
        try:
            slow_seen += [number async for number in slow]
        except TeeOverflow as error:
            errors.append(error)
    expected = {"drop_oldest": [0, 97, 98, 99], "latest": [0, 99], "error": [0]}
    assert slow_seen == expected[policy]
    assert len(errors) == (policy == "error")


async def test_check_14_every_branch_sees_the_error_of_the_source():
    source = Source(3, error=LookupError("gone"))
    seen = []

    async def read(branch: AsyncIterator[int]) -> None:
        got = []
        with pytest.raises(LookupError):
            await collect(got, branch)
        seen.append(got)

    async with tee(source.numbers(), 3) as branches, anyio.create_task_group() as group:
        for branch in branches:
            group.start_soon(read, branch)
    assert seen == [[0, 1, 2]] * 3


async def collect(into: list, chunks: AsyncIterator) -> None:
    async for chunk in chunks:
        into.append(chunk)


async def test_check_14_closing_one_branch_leaves_the_others_and_the_last_closes_the_source():
    source = Source()
    async with tee(source.numbers(), size=2) as (one, other):
        assert await anext(one) == 0
        await one.aclose()
        assert [await anext(other) for _ in range(10)] == list(range(10))
        assert source.closed == 0
        await other.aclose()
        assert source.closed == 1


async def test_a_tee_shares_the_text_of_a_run():
    got: dict[str, list[str]] = {"screen": [], "voice": []}
    flujo = Flujo(told("a", "b", "c"))
    async with (
        flujo.stream_async("") as stream,
        tee(stream.text()) as (screen, voice),
        anyio.create_task_group() as group,
    ):
        group.start_soon(collect, got["screen"], screen)
        group.start_soon(collect, got["voice"], voice)
    assert got == {"screen": ["a", "b", "c"], "voice": ["a", "b", "c"]}
    assert stream.result.status == "completed"


# --- merge ------------------------------------------------------------------------------------------------------------


async def test_check_15_merged_chunks_are_tagged_and_keep_their_order():
    one, other = Source(50), Source(50)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    leads = []
    async with merge(a=one.numbers(), b=other.numbers()) as chunks:
        async for name, value, _ in chunks:
            seen[name].append(value)
            await anyio.sleep(0)
            leads += [one.made - len(seen["a"]), other.made - len(seen["b"])]
    assert seen == {"a": list(range(50)), "b": list(range(50))}
    assert max(leads) <= 1
    assert one.closed == other.closed == 1


@pytest.mark.parametrize("on_error", ["cancel", "isolate"])
async def test_check_15_a_stream_that_fails_ends_the_others_or_not(on_error):
    good, bad = Source(20), Source(2, error=LookupError("gone"))
    seen: list[object] = []
    raised = None
    async with merge(good=good.numbers(), bad=bad.numbers(), on_error=on_error) as chunks:
        try:
            await collect(seen, chunks)
        except LookupError as error:
            raised = error
    assert (raised is not None) == (on_error == "cancel")
    if on_error == "isolate":
        assert sum(item.name == "good" for item in seen) == 20
        assert [str(item.error) for item in seen if item.error is not None] == ["gone"]
    assert good.closed == bad.closed == 1


async def test_leaving_a_merge_lets_all_clean_up_at_once():
    async def slow_to_close() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.2)

    streams = {f"s{number}": slow_to_close() for number in range(10)}
    async with merge(**streams) as chunks:
        async for _ in chunks:
            break
        begun = anyio.current_time()
    assert anyio.current_time() - begun < 1  # one after the other took two seconds


async def test_leaving_a_merge_closes_all():
    sources = [Source() for _ in range(3)]
    async with merge(**{f"s{n}": source.numbers() for n, source in enumerate(sources)}) as chunks:
        async for _ in chunks:
            break
    assert all(source.closed == 1 for source in sources if source.made)


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_sentences_are_the_same_wherever_the_text_is_cut(seed):
    text = (
        "Dr. Stone paid $3.50 at 4 p.m. yesterday. He said \u201cno.\u201d Then he left! Why?\n\n"
        "A heading\n\nThe J. Smith case, e.g. this one, is open... And so on"
    )
    rng, pieces, at = random.Random(seed), [], 0
    while at < len(text):
        size = rng.randint(1, 9)
        pieces.append(text[at : at + size])
        at += size
    assert await values(Flujo(told(*pieces) >> sentences())) == [
        "Dr. Stone paid $3.50 at 4 p.m. yesterday.",
        "He said \u201cno.\u201d",
        "Then he left!",
        "Why?",
        "A heading",
        "The J. Smith case, e.g. this one, is open...",
        "And so on",
    ]


HARD = (
    "word " * 160 + "end. Next one. ",
    "One line\n             \nand the next. So",
    "He said (yes.)))))))))) Next one. ",
    "Dr............. Who came. ",
    "A line of words\nand others\nwithout any end " * 3,
    "One.          " + "x" * 45 + " Two.",
    *(
        "".join(random.Random(seed).choices(["word", "Dr.", ".", "?", " ", " ", "\n", '"', ")", "x" * 30], k=90))
        for seed in range(30)
    ),
)


@pytest.mark.parametrize("text", HARD)
async def test_a_sentence_is_no_longer_than_it_may_be_however_large_the_pieces_are(text):
    step = sentences(max_chars=50)
    whole = await values(Flujo(told(text) >> step))
    assert max(map(len, whole)) <= 50
    assert "".join("".join(whole).split()) == "".join(text.split())
    for size in (1, 7):
        assert await values(Flujo(told(*(text[at : at + size] for at in range(0, len(text), size))) >> step)) == whole


async def test_a_sentence_without_an_end_is_cut_at_any_white_space():
    assert await values(Flujo(told("some\nwords\tand\nothers") >> sentences(max_chars=12))) == [
        "some\nwords",
        "and\nothers",
    ]


async def test_a_sentence_without_an_end_is_cut():
    found = await values(Flujo(told("word " * 100) >> sentences(max_chars=50)))
    assert max(map(len, found)) <= 50
    assert " ".join(found).split() == ["word"] * 100


async def test_a_sentence_is_given_as_soon_as_it_has_ended():
    made = []

    async def tell(given: object) -> AsyncIterator[str]:
        for piece in ("One. ", "Two. ", "Three. "):
            made.append(piece)
            yield piece

    async with Flujo(StreamingStep(tell) >> sentences()).stream_async("") as stream:
        async for text in stream.text():
            assert text == "One."
            break
    assert made == ["One. "]


async def test_a_throttle_sets_the_pace():
    source = Source(6)
    started = anyio.current_time()
    assert await values(Flujo(StreamingStep(source.numbers) >> throttle(100))) == list(range(6))
    assert anyio.current_time() - started >= 0.049
    with pytest.raises(ConfigurationError):
        throttle(0)


@pytest.mark.parametrize(
    ("end", "told"),
    [(asyncio.CancelledError("a request of its own"), "a request of its own"), (SystemExit(3), "exit")],
    ids=["cancelled", "exits"],
)
@pytest.mark.parametrize("how", ["merge", "tee", "buffer"])
async def test_a_source_that_was_cancelled_or_exits_has_failed_and_is_no_whole(how, end, told):
    async def broken(given: object = None) -> AsyncIterator[str]:
        yield "half"
        raise end

    got: list[object] = []

    async def read() -> None:
        if how == "merge":
            async with merge(a=broken()) as chunks:
                await collect(got, chunks)
        elif how == "tee":
            async with tee(broken(), 1) as (branch,):
                await collect(got, branch)
        else:
            async with Flujo(StreamingStep(broken) >> buffer(2)).stream_async(0) as stream:
                await collect(got, stream.text())

    with pytest.raises(RuntimeError, match=told):
        await read()
    assert len(got) == 1


@pytest.mark.parametrize("how", ["merge", "tee", "buffer"])
async def test_a_source_whose_clean_up_fails_holds_nobody_up(how):
    async def broken(given: object = None) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise OSError("its clean-up failed")

    async def read() -> object:
        if how == "merge":
            async with merge(a=broken()) as chunks:
                return (await anext(aiter(chunks))).value
        if how == "tee":
            async with tee(broken(), 1) as (branch,):
                return await anext(branch)
        async with Flujo(StreamingStep(broken) >> buffer(2)).stream_async(0) as stream:
            async for item in stream:
                if isinstance(item, Chunk):
                    return item.value

    ended: list[object] = []

    async def watched() -> None:
        ended.append(await read())

    async with anyio.create_task_group() as group:
        group.start_soon(watched)
        with anyio.move_on_after(10):
            while not ended:
                await anyio.sleep(0.01)
        assert ended == [1]


# --- partial structured output ----------------------------------------------------------------------------------------


class Item(BaseModel):
    name: str
    price: float
    kind: Literal["new", "newer"]


class Order(BaseModel):
    number: int
    paid: bool
    items: list[Item]


ORDER = {"number": 12345, "paid": True, "items": [{"name": 'pen \\ "x"', "price": 1.25, "kind": "newer"}] * 3}


async def test_check_19_snapshots_grow_and_show_only_what_is_closed():
    text = json.dumps(ORDER)
    snapshots = await values(Flujo(told(*text) >> partial_json(Order, min_chars=1)))
    *partial, last = snapshots
    assert last == Order.model_validate(ORDER)
    assert len(partial) > 25
    numbers = {snapshot.get("number") for snapshot in partial}
    assert numbers <= {None, 12345}
    assert {snapshot.get("paid") for snapshot in partial} <= {None, True}
    items = [item for snapshot in partial for item in snapshot.get("items", [])]
    assert {item.get("price") for item in items} <= {None, 1.25}
    assert {item.get("kind") for item in items} <= {None, "newer"}
    names = {item.get("name") for item in items} - {None}
    assert all(ORDER["items"][0]["name"].startswith(name) for name in names)
    assert len(names) > 3  # a text may grow
    sizes = [len(json.dumps(snapshot)) for snapshot in partial]
    assert sizes == sorted(sizes)


async def test_check_19_the_whole_is_validated_strictly():
    async with Flujo(told('{"number": "12"', ', "paid": true, "items": []}') >> partial_json(Order)).stream_async(
        ""
    ) as stream:
        items = [item async for item in stream]
    assert items[-1].result.status == "failed"
    assert isinstance(items[-1].result.error.__cause__, ValidationError)


async def test_check_19_the_work_is_in_proportion_to_the_text():
    def long(times: int) -> list[str]:
        text = json.dumps({"number": 1, "paid": True, "items": ORDER["items"] * times})
        return [text[at : at + 4] for at in range(0, len(text), 4)]

    short, longer = [len(await values(Flujo(told(*long(times)) >> partial_json(Order)))) for times in (30, 300)]
    assert longer < 4 * short  # snapshots of ten times the text: each costs what there is
