"""The ClickHouse HTTP protocol in front of the engine: an ASGI application.

Runs on the event loop of the engine child (see `child`). Each request is taken apart (`requests`), its sender known
(`access`), a reader's statement judged (`guard`), and run in a place of its own (`running`) as a read (`reads`) or a
streamed insert (`inserts`) on a worker thread, whose answer is sent as it comes (`answers`).
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope_collector.engine.access import Role, credentials_of, role_of
from loopscope_collector.engine.answers import Answer, Broken, Send, deliver, gone_down, send_error, send_whole
from loopscope_collector.engine.compression import Decoder, choose_encoding
from loopscope_collector.engine.config import DATABASE, EngineConfig
from loopscope_collector.engine.errors import (
    ACCESS_DENIED,
    BAD_ARGUMENTS,
    SYNTAX_ERROR,
    TOO_LARGE_STRING_SIZE,
    UNKNOWN_EXCEPTION,
    ClickHouseError,
)
from loopscope_collector.engine.guard import Guard
from loopscope_collector.engine.handles import Engine
from loopscope_collector.engine.inserts import InsertPlan, gathered, run_insert
from loopscope_collector.engine.pipes import AnswerPipe, BodyReader, Disconnected, Message
from loopscope_collector.engine.reads import ReadPlan, run_read
from loopscope_collector.engine.requests import EngineRequest, request_of
from loopscope_collector.engine.running import Lanes, Running, Statement
from loopscope_collector.engine.settings import insert_settings, reader_settings, writer_settings
from loopscope_collector.engine.statements import HEAD_BOUND, InsertHead, begins_with_insert, insert_head

Receive = Callable[[], Awaitable[Message]]

QUERY_BOUND_BYTES = 64 * 1024 * 1024
"""A statement that is no streamed insert must fit into this."""
DRAIN_BYTES = 64 * 1024 * 1024
"""After a refusal so much of a body is still read, so that a client that is busy sending gets to see the answer."""

log = logging.getLogger("loopscope.engine")


@dataclass(slots=True)
class Body:
    """A request body: what has been read and decoded of it, and the rest."""

    reader: BodyReader
    decoder: Decoder
    first: bytes = b""

    async def read_until(self, enough: Callable[[bytes], bool]) -> None:
        """Decode into `first` until it is enough or all."""
        while not enough(self.first) and (piece := await self.reader.next()):
            self.first += b"".join(self.decoder.pieces(piece))

    async def whole(self) -> bytes:
        """All of it. Raises ClickHouseError beyond the bound."""
        await self.read_until(lambda first: len(first) > QUERY_BOUND_BYTES)
        if len(self.first) > QUERY_BOUND_BYTES:
            message = f"a statement may have {QUERY_BOUND_BYTES} bytes; send data as INSERT ... FORMAT, which streams"
            raise ClickHouseError(TOO_LARGE_STRING_SIZE, message, status=413)
        self.decoder.check_complete()
        return self.first

    def rest(self, start: int) -> Iterator[bytes]:
        """For a worker thread: everything from `start` of `first` on."""
        if len(self.first) > start:
            yield self.first[start:]
        self.first = b""
        yield from gathered(self.reader.pieces(), self.decoder)


class EngineServer:
    """The ASGI application; one for each engine."""

    def __init__(self, config: EngineConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._pool = ThreadPoolExecutor(config.parallel_reads + config.parallel_writes, "statement")
        self._guard_pool = ThreadPoolExecutor(2, "guard")
        # A pool of its own: nothing may stand in the way of ending a statement.
        self._kill_pool = ThreadPoolExecutor(1, "kill")
        self._guard = Guard(config, engine)
        self._lanes = Lanes(config)
        self._running = Running(engine, self._kill_pool)
        self._began = time.time()
        self._draining = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = Answer(str(uuid.uuid4()))
        reader = BodyReader(asyncio.get_running_loop(), receive)
        try:
            request = request_of(scope)
            # The id goes into a header: nothing but plain characters may pass.
            given = request.args.get("query_id", "")
            if given.isascii() and given.isprintable() and 0 < len(given) <= 128:
                answer.query_id = given
            await self._route(request, answer, reader, send)
        except (Disconnected, Broken):
            return
        except ClickHouseError as error:
            await self._fail(answer, error, reader, send)
        except Exception as error:
            log.exception("a request failed in a way that was not foreseen")
            text = f"the engine's HTTP side failed: {type(error).__name__}: {error}"
            await self._fail(answer, ClickHouseError(UNKNOWN_EXCEPTION, text), reader, send)

    async def _fail(self, answer: Answer, error: ClickHouseError, reader: BodyReader, send: Send) -> None:
        if not answer.begun:
            await reader.drain(at_most=DRAIN_BYTES)
            await send_error(answer, error, send)

    async def _route(self, request: EngineRequest, answer: Answer, reader: BodyReader, send: Send) -> None:
        if request.path == "/ping":
            await send_whole(send, 200, [(b"Content-Type", b"text/plain; charset=UTF-8")], b"Ok.\n")
            return
        role = role_of(self._config, credentials_of(request.headers, request.args), request.headers)
        if request.path == "/loopscope/engine":
            if role is not Role.WRITER:
                raise ClickHouseError(ACCESS_DENIED, "/loopscope/engine answers to the write secret only")
            await send_whole(send, 200, [(b"Content-Type", b"application/json")], json.dumps(self.state()).encode())
            return
        if request.path not in ("/", "/query"):
            message = f"there is nothing at {request.path[:80]!r}; queries go to / and liveness to /ping"
            raise ClickHouseError(BAD_ARGUMENTS, message, status=404)
        if request.method not in ("GET", "POST"):
            raise ClickHouseError(BAD_ARGUMENTS, f"method {request.method[:20]!r} is not served here", status=405)
        if self._draining:
            raise gone_down()
        await self._statement(role, request, answer, reader, send)

    async def _statement(
        self, role: Role, request: EngineRequest, answer: Answer, reader: BodyReader, send: Send
    ) -> None:
        body = Body(reader, Decoder(request.headers.get("content-encoding", "").strip().lower()))
        if request.is_form:
            request = request.with_form(await body.whole())
            text = request.args.get("query", "").encode()
        else:
            text = request.args.get("query", "").encode()
            if role is Role.WRITER and request.method == "POST":
                head = await _find_insert(text, body)
                if head is not None:
                    await self._insert(head, request, answer, body, send)
                    return
            rest = await body.whole()
            text = text + b"\n" + rest if text and rest else text or rest
        try:
            sql = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ClickHouseError(BAD_ARGUMENTS, f"the statement is not UTF-8: {error}") from error
        if not sql.strip():
            raise ClickHouseError(SYNTAX_ERROR, "Empty query: give it in the body or in the parameter `query`")
        await self._read(role, sql, request, answer, reader, send)

    async def _read(
        self, role: Role, sql: str, request: EngineRequest, answer: Answer, reader: BodyReader, send: Send
    ) -> None:
        statement = Statement(answer.query_id, role, sql)
        database = request.database or (DATABASE if role is Role.READER else "default")
        loop = asyncio.get_running_loop()
        async with self._lanes.place(role):
            if role is Role.READER:
                verdict = await loop.run_in_executor(self._guard_pool, self._guard.judge, sql, request.params, database)
                settings = reader_settings(self._config, request.settings, statement.mark, readonly=verdict.readonly)
            else:
                verdict = await loop.run_in_executor(self._guard_pool, self._guard.describe, sql)
                settings = writer_settings(request.settings, statement.mark, readonly=request.method == "GET")
            if verdict.has_rows:
                answer.output_format = verdict.output_format or request.default_format
                answer.exception_tag = secrets.token_hex(8)
                answer.encoding = choose_encoding(request.accepted_encodings)
            answer.hold_back = request.flag("wait_end_of_query")
            plan = ReadPlan(
                sql=sql,
                params=request.params,
                settings=settings,
                database=database,
                output_format=answer.output_format or "TabSeparated",
                streamable=verdict.streamable,
                encoding=answer.encoding,
                exception_tag=answer.exception_tag,
                whole_bound_bytes=self._config.reader_max_result_bytes if role is Role.READER else 0,
            )
            pipe = AnswerPipe(loop)
            async with self._run(statement, pipe, lambda: run_read(self._engine, plan, pipe)):
                await _unless_gone(deliver(answer, pipe, send), reader)

    async def _insert(self, head: InsertHead, request: EngineRequest, answer: Answer, body: Body, send: Send) -> None:
        statement = Statement(answer.query_id, Role.WRITER, head.sql)
        plan = InsertPlan(
            sql=head.sql,
            input_format=head.input_format,
            settings=insert_settings(request.settings, statement.mark),
            database=request.database or "default",
        )
        async with self._lanes.place(Role.WRITER):
            pipe = AnswerPipe(asyncio.get_running_loop())
            data = body.rest(head.data_start)
            async with self._run(statement, pipe, lambda: run_insert(self._engine, plan, data, pipe)):
                await deliver(answer, pipe, send)

    @asynccontextmanager
    async def _run(self, statement: Statement, pipe: AnswerPipe, work: Callable[[], None]) -> AsyncGenerator[None]:
        """Run `work` on a thread; whatever ends the block, the thread has ended after it."""
        if self._draining:  # it waited for its place meanwhile
            raise gone_down()
        loop = asyncio.get_running_loop()
        self._running.add(statement)

        def run() -> None:
            try:
                work()
            except Exception:
                log.exception("a statement failed in a way that was not foreseen")
            finally:
                loop.call_soon_threadsafe(self._running.remove, statement)

        self._pool.submit(run)
        try:
            yield
            await statement.ended.wait()
        finally:
            if not statement.ended.is_set():
                pipe.abandon()
                await asyncio.shield(self._running.kill(statement))

    def state(self) -> dict[str, Any]:
        """For `GET /loopscope/engine`."""
        now = time.monotonic()
        return {
            "version": self._engine.version,
            "started_at": self._began,
            "memory_bytes": _resident_bytes(),
            "statements": self._running.total,
            "guard": self._guard.figures(),
            "running": [
                {
                    "query_id": statement.query_id,
                    "role": statement.role.value,
                    "seconds": round(now - statement.started_at, 3),
                    "text": statement.text[:200],
                }
                for statement in self._running.all()
            ],
            "parallel_reads": self._config.parallel_reads,
            "memory_limit_bytes": self._config.memory_limit_bytes,
        }

    async def drain(self, *, grace_seconds: float) -> None:
        """Take no more statements, kill the readers', let the writer's end and then kill them too.

        Afterwards no thread is inside the engine.
        """
        self._draining = True
        for statement in self._running.all():
            if statement.role is Role.READER:
                await self._running.kill(statement)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                for statement in self._running.all():
                    await statement.ended.wait()
        for statement in self._running.all():
            await self._running.kill(statement)
        self._pool.shutdown(wait=True)
        self._guard_pool.shutdown(wait=True)
        self._kill_pool.shutdown(wait=True)


def _resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


async def _find_insert(text: bytes, body: Body) -> InsertHead | None:
    """The INSERT whose data follows, wherever its statement stands; None when the request is something else."""
    if text:
        if not begins_with_insert(text):
            return None
        head = insert_head(text + b"\n")
        if head is not None and (tail := text[head.data_start :]).strip():
            body.first = tail + b"\n"  # data behind the statement, as the server allows
        return head and InsertHead(head.sql, head.input_format, 0)

    def known(first: bytes) -> bool:
        if not first.strip():
            return False
        if len(first) > HEAD_BOUND:
            return True
        if len(first) > 64 and not begins_with_insert(first):
            return True
        head = insert_head(first)
        return head is not None and head.data_start < len(first)

    await body.read_until(known)
    return insert_head(body.first)


async def _unless_gone(work: Awaitable[None], reader: BodyReader) -> None:
    """Do the work, or stop it when the client closes its connection. Raises Disconnected."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(reader.disconnected())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return
        raise Disconnected
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
