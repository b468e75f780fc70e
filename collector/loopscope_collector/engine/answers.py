"""Sending an answer: headers, chunks, and failures before and after the first byte.

Used by `server`, on the event loop of the engine child.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from loopscope_collector.engine.errors import NETWORK_ERROR, ClickHouseError
from loopscope_collector.engine.formats import content_type
from loopscope_collector.engine.pipes import AnswerPipe, Chunk, Disconnected, Failed, Finished, Message

Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HOLD_BACK_BYTES = 8 * 1024 * 1024
"""With `wait_end_of_query`, so much of an answer is held back, so that a failure is still a plain error."""
SEND_SECONDS = 120.0
"""A client that takes nothing for this long loses its connection, and with it the place its statement holds."""


class Broken(Exception):  # noqa: N818 - a signal to the server, told to the client already
    """The answer ended in the middle: the connection must be closed without the last chunk."""


@dataclass(slots=True)
class Answer:
    """What is known of an answer before its first byte is sent."""

    query_id: str
    output_format: str = ""
    encoding: str = ""
    exception_tag: str = ""
    hold_back: bool = False
    started_at: float = field(default_factory=time.monotonic)
    begun: bool = False

    def headers(self, done: Finished | None) -> Headers:
        """Headers of a good answer; the figures are zero when it is sent before its statement ended."""
        figures = done or Finished()
        summary = {
            "read_rows": str(figures.read_rows),
            "read_bytes": str(figures.read_bytes),
            "written_rows": str(figures.written_rows),
            "written_bytes": str(figures.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(figures.written_rows),
            "result_bytes": str(figures.written_bytes),
            "elapsed_ns": str(int((time.monotonic() - self.started_at) * 1e9)),
        }
        found = [
            ("X-ClickHouse-Query-Id", self.query_id),
            ("X-ClickHouse-Timezone", "UTC"),
            ("X-ClickHouse-Server-Display-Name", "loopscope"),
            ("X-ClickHouse-Summary", json.dumps(summary, separators=(",", ":"))),
        ]
        if self.output_format:
            found += [("X-ClickHouse-Format", self.output_format), ("Content-Type", content_type(self.output_format))]
        if self.exception_tag:
            found.append(("X-ClickHouse-Exception-Tag", self.exception_tag))
        if self.encoding:
            found.append(("Content-Encoding", self.encoding))
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in found]


async def deliver(answer: Answer, pipe: AnswerPipe, send: Send) -> None:
    """Send what comes out of the pipe.

    Raises ClickHouseError for a failure before the first byte, Broken for one after it, Disconnected when the client
    takes nothing any more.
    """
    held: list[bytes] = []
    size = 0
    bound = HOLD_BACK_BYTES if answer.hold_back else 0
    while True:
        match await pipe.get():
            case Chunk(data):
                if answer.begun:
                    await _send(send, data)
                    continue
                held.append(data)
                size += len(data)
                if size > bound:
                    await _begin(answer, send, None)
                    for piece in held:
                        await _send(send, piece)
                    held.clear()
            case Finished() as done:
                if answer.begun:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                headers = (
                    answer.headers(done) if held else [h for h in answer.headers(done) if h[0] != b"Content-Encoding"]
                )
                await send_whole(send, 200, headers, b"".join(held))
                return
            case Failed(error, trailer):
                if not answer.begun:
                    raise error
                # Once as ClickHouse does it, behind the data; and the missing last chunk tells every other client.
                await _send(send, trailer)
                raise Broken


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer with its length."""
    length = (b"Content-Length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(answer: Answer, error: ClickHouseError, send: Send) -> None:
    """A plain error: the code in a header, the text in the body."""
    text = str(error)
    headers = [
        (b"X-ClickHouse-Query-Id", answer.query_id.encode()),
        (b"X-ClickHouse-Exception-Code", str(error.code).encode()),
        (b"Content-Type", b"text/plain; charset=UTF-8"),
    ]
    if error.status == 503:
        headers.append((b"Retry-After", b"1"))
    if error.status == 401:
        headers.append((b"WWW-Authenticate", b'Basic realm="Loopscope engine"'))
    await send_whole(send, error.status, headers, (text + "\n").encode("utf-8", "replace"))


async def _begin(answer: Answer, send: Send, done: Finished | None) -> None:
    answer.begun = True
    await send({"type": "http.response.start", "status": 200, "headers": answer.headers(done)})


async def _send(send: Send, data: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except TimeoutError as error:
        raise Disconnected from error


def gone_down() -> ClickHouseError:
    """What a request hears while the engine ends."""
    return ClickHouseError(NETWORK_ERROR, "the engine is going down; try again in a second", status=503)
