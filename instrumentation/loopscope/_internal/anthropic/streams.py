"""Listening to a streamed response body without holding it up: chunks pass through, references and arrival times stay.

The body of the HTTP response is wrapped, below everything the SDK builds on it, so `Stream`, `MessageStream`, raw
responses and their context managers all work as before, and an abandoned stream is noticed when it is closed or
forgotten. Nothing is parsed here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any

from loopscope._internal import guard

CAPTURE_MAX_BYTES = 64 * 1024 * 1024
"""What one stream may hold for us; beyond it chunks pass unrecorded and are counted."""
CAPTURES_MAX_BYTES = 256 * 1024 * 1024
"""What all open streams together may hold: a host can leave any number half read, for as long as it likes."""
CHUNK_OVERHEAD_BYTES = 100
"""What a chunk costs beside its bytes (its object, its time, two list entries): streams of tiny chunks are common."""

# Reentrant: the garbage collector may end a forgotten stream anywhere on this thread.
_lock = threading.RLock()
_held = 0


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class StreamCapture:
    """What was seen of one stream."""

    def __init__(self, ended: Callable[[BaseException | None], None]) -> None:
        self._ended: Callable[[BaseException | None], None] | None = ended
        self.chunks: list[bytes] = []
        self.arrivals: list[float] = []
        self.size = 0
        self.overflow_bytes = 0
        self.exhausted = False

    @guard.guarded
    def chunk(self, data: Any) -> None:
        """A piece of the body passes by; nothing is kept of what passes after the end."""
        if self._ended is None:
            return
        if isinstance(data, bytes) and self._reserve(len(data) + CHUNK_OVERHEAD_BYTES):
            self.chunks.append(data)
            self.arrivals.append(time.perf_counter())
            # Nothing follows an error event, and an old SDK leaves the stream open until its exception is forgotten.
            # Inside of JSON there is no bare line break, so this is no part of an answer's text.
            if data.startswith(b"event: error") or b"\nevent: error" in data:
                self.end()
        else:
            self.overflow_bytes += len(data)

    def _reserve(self, size: int) -> bool:
        """Whether so much more may be held. Once it may not, nothing more is: a body with a hole cannot be read."""
        global _held
        if self.overflow_bytes or self.size + size > CAPTURE_MAX_BYTES:
            return False
        with _lock:
            if _held + size > CAPTURES_MAX_BYTES:
                return False
            _held += size
        self.size += size
        return True

    @guard.guarded
    def end(self, error: BaseException | None = None, *, exhausted: bool = False) -> None:
        """The stream is over: read to its end, broken, closed, or forgotten. The first of these counts."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self.exhausted = exhausted
            try:
                ended(error)
            finally:
                self.release()

    def release(self) -> None:
        """Let go of what was captured; the host may keep the response, and with it this object."""
        global _held
        self.chunks = []
        self.arrivals = []
        with _lock:
            _held -= self.size
        self.size = 0


def held_bytes() -> int:
    """What all open streams hold for us just now."""
    return _held


def listen(response: Any, capture: StreamCapture) -> bool:
    """Wrap the body of a response that was not read yet; False when it cannot be."""
    body = getattr(response, "stream", None)
    package = sys.modules.get(type(response).__module__.partition(".")[0])
    wrapper = _wrapper(package, body) if package is not None else None
    if wrapper is None:
        return False
    response.stream = wrapper(body, capture)
    return True


def _wrapper(package: Any, body: object) -> Callable[[Any, StreamCapture], Any] | None:
    sync, asynchronous = getattr(package, "SyncByteStream", None), getattr(package, "AsyncByteStream", None)
    if sync is None or asynchronous is None:
        return None
    is_sync, is_async = isinstance(body, sync), isinstance(body, asynchronous)
    return _wrapper_class(sync, asynchronous, is_sync, is_async) if is_sync or is_async else None


@lru_cache(maxsize=16)
def _wrapper_class(sync: Any, asynchronous: Any, is_sync: bool, is_async: bool) -> Callable[[Any, StreamCapture], Any]:
    """A class that is a body of the same kinds as the wrapped one: httpx checks, and anthropic's SDKs use two httpx."""
    bases: tuple[type, ...] = ((_SyncBody, sync) if is_sync else ()) + ((_AsyncBody, asynchronous) if is_async else ())
    return type("ListenedBody", bases, {})


class _Body:
    def __init__(self, body: Any, capture: StreamCapture) -> None:
        self._loopscope_body = body
        self._loopscope_capture = capture

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_loopscope"):
            raise AttributeError(name)
        return getattr(self._loopscope_body, name)

    def __del__(self) -> None:
        capture = self.__dict__.get("_loopscope_capture")
        if capture is not None:
            capture.end()


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        capture = self._loopscope_capture
        try:
            for chunk in self._loopscope_body:
                capture.chunk(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            capture.end(error)
            raise
        capture.end(exhausted=True)

    def close(self) -> None:
        try:
            self._loopscope_body.close()
        finally:
            self._loopscope_capture.end()


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        capture = self._loopscope_capture
        try:
            async for chunk in self._loopscope_body:
                capture.chunk(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            capture.end(error)
            raise
        capture.end(exhausted=True)

    async def aclose(self) -> None:
        try:
            await self._loopscope_body.aclose()
        finally:
            self._loopscope_capture.end()
