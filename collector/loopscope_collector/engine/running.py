"""The statements that run now: their places, their ends.

`Lanes` bounds how many run at once (readers and the writer never take each other's places); `Running` knows each of
them and can end it. Lives on the event loop; used by `server`.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from loopscope_collector.engine.access import Role
from loopscope_collector.engine.config import EngineConfig
from loopscope_collector.engine.errors import TOO_MANY_SIMULTANEOUS_QUERIES, ClickHouseError
from loopscope_collector.engine.handles import Engine, quote

KILL_INTERVAL_SECONDS = 0.1


@dataclass(slots=True)
class Statement:
    """One statement on its way through the engine."""

    query_id: str
    role: Role
    text: str
    mark: str = field(default_factory=lambda: f"loopscope:{uuid.uuid4().hex}")
    """Goes along as `log_comment`; the engine's own query ids cannot be chosen, so this is how it is found and
    killed."""
    started_at: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Lanes:
    """Places for statements: a number for readers, a number for the writer."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._free = {
            Role.READER: asyncio.Semaphore(config.parallel_reads),
            Role.WRITER: asyncio.Semaphore(config.parallel_writes),
        }

    @asynccontextmanager
    async def place(self, role: Role) -> AsyncGenerator[None]:
        """Hold a place. Raises ClickHouseError 202 when none came free in time."""
        reader = role is Role.READER
        wait = self._config.read_queue_seconds if reader else self._config.write_queue_seconds
        free = self._free[role]
        try:
            async with asyncio.timeout(wait):
                await free.acquire()
        except TimeoutError as error:
            number = self._config.parallel_reads if reader else self._config.parallel_writes
            message = (
                f"{number} statements are running and none ended within {wait:g} s; try again later or ask for less"
            )
            raise ClickHouseError(TOO_MANY_SIMULTANEOUS_QUERIES, message) from error
        try:
            yield
        finally:
            free.release()


class Running:
    """All statements between their arrival and their last thread's end."""

    def __init__(self, engine: Engine, killers: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._killers = killers
        self._statements: dict[str, Statement] = {}
        self.total = 0

    def add(self, statement: Statement) -> None:
        """Enter a statement."""
        self._statements[statement.mark] = statement
        self.total += 1

    def remove(self, statement: Statement) -> None:
        """Its thread has ended."""
        self._statements.pop(statement.mark, None)
        statement.ended.set()

    def all(self) -> list[Statement]:
        """Those that have not ended."""
        return list(self._statements.values())

    async def kill(self, statement: Statement) -> None:
        """End a statement and wait for it. Repeats itself, as the engine may not have heard of the statement yet."""
        while not statement.ended.is_set():
            await asyncio.get_running_loop().run_in_executor(self._killers, self._kill_now, statement.mark)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(statement.ended.wait(), KILL_INTERVAL_SECONDS)

    def _kill_now(self, mark: str) -> None:
        with self._engine.handle() as handle:
            handle.execute(f"KILL QUERY WHERE Settings['log_comment'] = {quote(mark)}")
