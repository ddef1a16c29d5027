"""`ctx.stream_model`: the one way to a model that is read while it answers, in the same fixed order as a call.

transform request -> guard -> record intent -> reserve -> stream, each piece transformed -> settle -> record -> observe
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import NoReturn

import anyio

from . import gates, payloads
from .calls import Calls, check_price, clamped, fit_of, input_bound, really_used
from .context import RunContext
from .delivery import ChunkTransforms, needs_whole
from .errors import ConfigurationError, NotSent, StepFailed, UsageLimitExceeded
from .feed import CLEAN_UP_S
from .foreign import attempt_async
from .gates import Passage
from .items import ModelChunk
from .messages import ModelRequest, ModelResponse, ModelUsage, ToolCall
from .meter import Lease
from .outcome import Called
from .reading import Asked
from .running import Act
from .telemetry import Piece
from .told import model_key
from .usage import Price, Usage


class _Answer:
    """What came of a model's answer so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tool_calls: list[ToolCall] = []
        self.usage: ModelUsage | None = None
        self.finish_reason: str = ""
        self.model: str = ""
        self.pieces: int = 0

    def note(self, chunk: ModelChunk) -> None:
        """Note what a piece tells beside its text; a piece with content is a token at least."""
        self.pieces += bool(chunk.content or chunk.tool_calls) + chunk.hidden
        self.tool_calls += chunk.tool_calls
        self.usage = chunk.usage or self.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.model = chunk.model or self.model

    def add(self, text: str, choice: int) -> None:
        """Add to the text that is given out; of several answers, the first counts as the response."""
        if not choice:
            self.texts.append(text)

    @property
    def tokens(self) -> int:
        """Fewest output tokens that it can have."""
        return max(self.pieces, 0 if self.usage is None else self.usage.output_tokens)

    def response(self) -> ModelResponse:
        """All of it."""
        return ModelResponse(
            content="".join(self.texts), tool_calls=tuple(self.tool_calls), usage=self.usage, model=self.model,
            finish_reason=self.finish_reason,
        )  # fmt: skip


class ModelStream:
    """A model's answer while it comes: `async with ctx.stream_model(request, send) as stream`.

    Attributes:
        response: The whole answer, once it has been read to its end; None before.
    """

    def __init__(self, calls: Calls, ctx: RunContext, asked: Asked) -> None:
        self._calls = calls
        self._run = calls.run
        self._ctx = ctx
        self._request, self._send, self._retry, self._price, record = asked
        self._key = model_key(asked.request, ctx.attempt) if record else ""
        self._places = AsyncExitStack()
        self._act: Act | None = None
        self._lease: Lease | None = None
        self._passage: Passage | None = None
        self._piece: Piece | None = None
        self._source: AsyncIterator[ModelChunk | str] | None = None
        self._reader: AsyncGenerator[ModelChunk, None] | None = None
        self._texts: AsyncGenerator[str, None] | None = None
        self._sent = self._is_over = False
        self._room: int | None = None
        self._answer = _Answer()
        self.response: ModelResponse | None = None

    # --- the block --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> ModelStream:
        if self._reader is not None:
            raise ConfigurationError("this model stream cannot be entered", "it was read before", "Make another")
        known, answer = self._ctx.recall(self._key) if self._key else (False, None)
        if known:  # this visit of the step was given it before, and runs again: no call is made
            self._reader = self._again(ModelResponse.model_validate(answer))
            return self
        run, path, number = self._run, self._ctx.step_path, 1
        if run.hooks.of("transform_model_request"):
            left = self._ctx.usage.left
            given = payloads.TransformModelRequest(run.info, path, self._request, left.cost_usd, left.tokens)
            self._request = await run.transform(given, "transform_model_request", ModelRequest, self._ctx)
        self._request = self._calls.apart(self._request)
        self._price = run.setup.price_of(self._request.model) if self._price is None else self._price
        while True:
            try:
                first = await self._begin(number)
            except Exception as error:  # whatever the provider's code raised; it goes on up, or is tried again
                await self._end(error)
                if self._retry is None or isinstance(error, StepFailed) or not self._retry.applies(error, number):
                    raise
                await run.back_off(self._retry, number, error, self._ctx)
                number, self._answer = number + 1, _Answer()
                continue
            except BaseException as stop:  # a cancel: what was begun is ended
                await self._end(stop)
                raise
            self._reader = self._whole(first) if needs_whole(run, "transform_model_response") else self._read(first)
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in (self._texts, self._reader):
            if reader is not None:
                await reader.aclose()
        await self._end(error or (None if self._is_over else GeneratorExit()))

    # --- reading ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[ModelChunk]:
        if self._reader is None:
            self._refuse()
        return self._reader

    def _refuse(self) -> NoReturn:
        raise TypeError("a model stream is read in a block: `async with ctx.stream_model(request, send) as stream:`")

    def text(self) -> AsyncIterator[str]:
        """The text of the answer, or of the first of several, as it comes."""
        self._texts = self._read_text()
        return self._texts

    async def _read_text(self) -> AsyncGenerator[str, None]:
        async for chunk in self:
            if chunk.content and not chunk.choice:
                yield chunk.content

    async def _read(self, chunk: ModelChunk | None) -> AsyncGenerator[ModelChunk, None]:
        answer, ctx = self._answer, self._ctx
        acting = "transform_chunk" in self._run.hooks.table
        assert self._act is not None
        stream_id, transforms = self._act.name, dict[int, ChunkTransforms]()
        error: Exception | None = None
        while chunk is not None and error is None:
            answer.note(chunk)
            error = self._breach()
            if error is None and chunk.content:
                text, choice = chunk.content, chunk.choice
                if acting:
                    if choice not in transforms:
                        transforms[choice] = ChunkTransforms(self._run, ctx, f"{stream_id}#{choice}", "model")
                    text = str(await transforms[choice].feed(text))
                if text:
                    answer.add(text, choice)
                    yield ModelChunk(text, choice)
            if error is None:
                chunk, error = await attempt_async(self._next())
        for choice, held in transforms.items():
            if rest := str(await held.finish()):
                answer.add(rest, choice)
                yield ModelChunk(rest, choice)
        await self._shut()
        if error is not None:
            raise error
        self._settle()
        response = await self._kept(answer.response())
        self.response, self._is_over = response, True
        yield ModelChunk("", 0, response.tool_calls, response.usage, response.finish_reason, response.model)

    async def _whole(self, chunk: ModelChunk | None) -> AsyncGenerator[ModelChunk, None]:
        """The answer in one piece: somebody transforms whole answers only, so that no part may be seen before that."""
        answer = self._answer
        while chunk is not None:
            answer.note(chunk)
            answer.add(chunk.content, chunk.choice)
            if (error := self._breach()) is not None:
                raise error
            chunk = await self._next()
        await self._shut()
        self._settle()
        async for piece in self._again(await self._kept(answer.response())):
            yield piece

    async def _again(self, whole: ModelResponse) -> AsyncGenerator[ModelChunk, None]:
        self.response, self._is_over = whole, True
        yield ModelChunk(whole.content, 0, whole.tool_calls, whole.usage, whole.finish_reason, whole.model)

    async def _next(self) -> ModelChunk | None:
        assert self._source is not None
        given: object = await anext(self._source, None)
        if given is None or isinstance(given, ModelChunk):
            return given
        if not isinstance(given, str):
            why = f"send for model {self._request.model!r} gave {type(given).__name__}, no ModelChunk and no text"
            raise StepFailed(self._ctx.step_path, "ResponseMismatch", why)
        return ModelChunk(given)

    async def _kept(self, answer: ModelResponse) -> ModelResponse:
        """The whole answer, transformed, and kept where it is to be recorded."""
        response = await self._transformed(answer)
        if self._key:
            await self._run.note_told(self._ctx, Called(response.model_dump(mode="json"), self._key))
        return response

    async def _transformed(self, response: ModelResponse) -> ModelResponse:
        run, hook = self._run, "transform_model_response"
        if not run.hooks.of(hook):
            return response
        asked = self._calls.apart(self._request)
        given = payloads.TransformModelResponse(run.info, self._ctx.step_path, asked, response)
        transformed: ModelResponse = await run.transform(given, hook, ModelResponse, self._ctx)
        return transformed

    # --- the fixed order --------------------------------------------------------------------------------------------

    async def _begin(self, number: int) -> ModelChunk | None:
        """Guard, record the intent, reserve, send, and wait for the first piece."""
        run, ctx, request = self._run, self._ctx, self._request
        self._calls.check_open()
        apart, about = self._calls.apart, (run.info, ctx.step_path, number)
        await run.guard("guard_model_call", lambda: payloads.GuardModelCall(*about, apart(request)), ctx)
        if (denial := run.hooks.policy.denial(request)) is not None:
            await run.deny(denial, ctx.step_path, ctx)
        self._act = Act("model_call", ctx.step_path, ctx, number, f"call-{next(self._calls.numbers)}")
        await run.intend(self._act, apart(request))
        self._piece = None if run.watch is None else run.watch.model(ctx, request)
        check_price(ctx, request.model, self._price)
        lease = self._lease = await self._reserved()
        self._calls.check_open()  # the run may have been stopped while this waited for its turn
        self._sent = True
        if self._price is not None and self._price.source:
            lease.priced_by = self._price.source
            run.info.count("priced_by", self._price.source)
        most = (self._price or Price()).max_output_tokens
        room, left = lease.charge.tokens - input_bound(request), ctx.usage.left
        self._room = None if left.tokens is None and left.cost_usd is None else room
        self._source = aiter(self._send(clamped(request, room, most)))
        return await self._next()

    async def _reserved(self) -> Lease:
        """Hold the worst case, and a place under each named limit of the model."""
        meter, limits, inputs = self._ctx.usage, self._run.hooks.policy.named_limits, input_bound(self._request)
        fit = fit_of(self._request, self._price or Price(), inputs)
        yields = False
        while True:
            # Not by `async with`: it would set a context variable, which a generator cannot take back in its place.
            lease = meter.open(meter.take(fit, yields) or await meter.wait(fit, yields))
            if not limits:
                return lease
            tokens = lease.charge.tokens
            passage = Passage(limits, [f"model:{self._request.model}"], tokens if tokens > inputs else None)
            try:
                around = gates.INSIDE.get()
                with lease.waiting():
                    await self._places.enter_async_context(passage)
                gates.INSIDE.set(around)  # what is done between two pieces is not inside
            finally:
                if lease.waits:  # others need what it holds, or it was cancelled: it comes after them
                    yields = True
                    lease.release()
            if lease.open:
                self._passage = passage
                return lease

    def _breach(self) -> UsageLimitExceeded | None:
        """The error for a model that gives more than was reserved for it, where limits hold."""
        room = self._room
        if room is None or self._answer.tokens <= room:
            return None
        limits, why = self._run.ledger.tightest, f"model {self._request.model!r} gave more than its {room} tokens"
        if limits is not None and limits.total_tokens_limit is None:
            error = UsageLimitExceeded("total_cost_usd_limit", f"{limits.cost} USD", why)
        else:
            error = UsageLimitExceeded("total_tokens_limit", f"{limits and limits.total_tokens_limit} tokens", why)
        self._run.stop(error, self._ctx)
        return error

    def _settle(self) -> None:
        """Book what the provider said that was used, or else all that was reserved."""
        lease, price = self._lease, self._price
        if lease is not None and lease.open:
            lease.close(really_used(lease, self._answer.usage, price))

    async def _shut(self) -> None:
        """Close the provider's side, whatever is cancelled meanwhile."""
        close = getattr(self._source, "aclose", None)  # an iterator need not have one
        if close is not None:
            with anyio.move_on_after(CLEAN_UP_S, shield=True) as limit:
                await attempt_async(close())
            if limit.cancelled_caught:
                self._run.info.count("abandoned_cleanups", self._ctx.step_path)

    async def _end(self, error: BaseException | None) -> None:
        """Settle, record and tell the end of an attempt; once."""
        act, self._act = self._act, None
        if act is None:
            return
        run, lease = self._run, self._lease
        await self._shut()
        if isinstance(error, NotSent) and lease is not None:
            self._sent = False
            lease.release()
        self._settle()
        used = Usage() if lease is None else lease.used
        if self._passage is not None:
            self._passage.used = None if used.unmeasured else used.total_tokens
        with anyio.CancelScope(shield=True):
            await self._places.aclose()
        if self._piece is not None and run.watch is not None:
            run.watch.called(self._piece, self.response, used, sent=self._sent)
            self._piece.end(error)
        if isinstance(error, UsageLimitExceeded):
            run.stop(error, self._ctx)
        whole = self.response is None and needs_whole(run, "transform_model_response")
        response, apart = None if whole else self.response or self._answer.response(), self._calls.apart
        await run.conclude(act, error, apart(response) if self._sent else None, used)
        if self._sent and (error is None or isinstance(error, (Exception, GeneratorExit))):
            took = perf_counter() - act.started
            facts = (self._ctx.step_path, apart(self._request), apart(self.response), used, took)
            await run.observe("on_model_call", partial(payloads.OnModelCall, run.info, *facts), self._ctx)
            await run.warn(self._ctx)
        self._lease, self._source, self._passage, self._piece = None, None, None, None
