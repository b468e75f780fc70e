"""Bytes between the event loop and worker threads, bounded in both directions.

`AnswerPipe` carries an answer from the thread that runs the statement to the connection; `BodyReader` gives a thread
the request body. Both stop the thread when the client is gone.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from loopscope_collector.engine.errors import NETWORK_ERROR, QUERY_WAS_CANCELLED, ClickHouseError

Message = dict[str, Any]


class Disconnected(Exception):  # noqa: N818 - it ends a request, nothing failed
    """The client closed its connection."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer, encoded."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The statement ended well."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The statement failed; `trailer` tells it to a client who has had a part of the answer, encoded like the rest."""

    error: ClickHouseError
    trailer: bytes = b""


class AnswerPipe:
    """At most `bound` chunks wait between the thread and the connection, so memory stays flat whatever the answer's
    size."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, bound: int = 4) -> None:
        self._loop = loop
        self._places = threading.Semaphore(bound)
        self._items: deque[Chunk | Finished | Failed] = deque()
        self._ready = asyncio.Event()
        self._abandoned = threading.Event()

    def put(self, data: bytes) -> None:
        """Thread side: hand over a chunk, waiting for a place. Raises ClickHouseError when nobody reads any more."""
        self._places.acquire()
        if self._abandoned.is_set():
            raise ClickHouseError(QUERY_WAS_CANCELLED, "the client is gone")
        self._hand_over(Chunk(data))

    def end(self, item: Finished | Failed) -> None:
        """Thread side: the last word; never waits."""
        self._hand_over(item)

    def _hand_over(self, item: Chunk | Finished | Failed) -> None:
        self._loop.call_soon_threadsafe(self._append, item)

    def _append(self, item: Chunk | Finished | Failed) -> None:
        self._items.append(item)
        self._ready.set()

    async def get(self) -> Chunk | Finished | Failed:
        """Loop side: the next item."""
        while not self._items:
            self._ready.clear()
            await self._ready.wait()
        item = self._items.popleft()
        if isinstance(item, Chunk):
            self._places.release()
        return item

    def abandon(self) -> None:
        """Loop side: nobody will read; a waiting thread is let go and told."""
        self._abandoned.set()
        self._places.release()  # the one thread that may wait sees the flag and stops


class BodyReader:
    """The request body, for a thread: each pull waits for the network, which is all the flow control there is to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Callable[[], Awaitable[Message]]) -> None:
        self._loop = loop
        self._receive = receive
        self.ended = False

    async def next(self) -> bytes:
        """Loop side: the next piece; b"" at the end. Raises Disconnected."""
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            self.ended = not message.get("more_body", False)
            if body := cast(bytes, message.get("body", b"")):
                return body
        return b""

    def pieces(self) -> Iterator[bytes]:
        """Thread side: the pieces. Raises ClickHouseError when the client closed in the middle."""
        while True:
            future = asyncio.run_coroutine_threadsafe(self.next(), self._loop)
            try:
                piece = future.result()
            except Disconnected as error:
                raise ClickHouseError(
                    NETWORK_ERROR, "the client closed the connection in the middle of the data"
                ) from error
            if not piece:
                return
            yield piece

    async def disconnected(self) -> None:
        """Loop side, after the body's end: returns when the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drain(self, *, at_most: int) -> None:
        """Read and drop the rest, so that a client which is still sending gets to read the answer."""
        dropped = 0
        try:
            while dropped < at_most and (piece := await self.next()):
                dropped += len(piece)
        except Disconnected:
            return
