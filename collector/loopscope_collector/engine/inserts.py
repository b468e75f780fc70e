"""Running one insert whose data streams in with the request.

Runs on a worker thread of the engine child; called by `server`. Nothing of the data touches a disk outside the table:
no temporary files, so no prompt text outside of retention. The insert becomes visible at its end or not at all, as long
as its data is one block of the table's (below `min_insert_block_size_bytes`, 256 MiB) and within one partition.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loopscope_collector.engine.compression import Decoder
from loopscope_collector.engine.errors import ClickHouseError
from loopscope_collector.engine.handles import Engine, engine_errors
from loopscope_collector.engine.pipes import AnswerPipe, Failed, Finished

APPEND_BYTES = 64 * 1024
"""Data goes to the engine in pieces of at least this size; each call costs some 10 us."""


@dataclass(frozen=True, slots=True)
class InsertPlan:
    """All that an insert needs to run."""

    sql: str
    """Without FORMAT clause."""
    input_format: str
    settings: Mapping[str, str]
    database: str


def run_insert(engine: Engine, plan: InsertPlan, data: Iterator[bytes], pipe: AnswerPipe) -> None:
    """Insert plain bytes; the pipe always gets an end."""
    try:
        pipe.end(_insert(engine, plan, data))
    except ClickHouseError as error:
        pipe.end(Failed(error))
    except BaseException as error:
        pipe.end(Failed(ClickHouseError.from_engine(error)))
        raise


def _insert(engine: Engine, plan: InsertPlan, data: Iterator[bytes]) -> Finished:
    with engine.handle(plan.settings, plan.database) as handle:
        insert = handle.insert(plan.sql, plan.input_format)
        try:
            with engine_errors():
                for piece in data:
                    insert.append(piece)
                result = insert.finish()
        except BaseException:
            with engine_errors():
                insert.cancel()
            raise
    return Finished(written_rows=int(result.rows_written), written_bytes=int(result.bytes_written))


def gathered(pieces: Iterator[bytes], decoder: Decoder) -> Iterator[bytes]:
    """Decode the body and gather small pieces. Raises ClickHouseError for a damaged body."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        for plain in decoder.pieces(piece):
            waiting.append(plain)
            size += len(plain)
            if size >= APPEND_BYTES:
                yield b"".join(waiting) if len(waiting) > 1 else plain
                waiting.clear()
                size = 0
    decoder.check_complete()
    if size:
        yield b"".join(waiting)
