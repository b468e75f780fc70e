"""Running one statement that answers with rows (or, for the writer, any statement that is no streamed insert).

Runs on a worker thread of the engine child; called by `server`. The answer goes into an `AnswerPipe` as it is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loopscope_collector.engine.compression import Encoder, encoder
from loopscope_collector.engine.errors import ClickHouseError
from loopscope_collector.engine.formats import joiner
from loopscope_collector.engine.handles import Engine
from loopscope_collector.engine.pipes import AnswerPipe, Failed, Finished

_SLICE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """All that a statement needs to run."""

    sql: str
    params: Mapping[str, str]
    settings: Mapping[str, str]
    database: str
    output_format: str
    streamable: bool
    """Only a SELECT can be streamed; the engine answers SHOW, DESCRIBE, DDL and the like whole."""
    encoding: str = ""
    exception_tag: str = ""
    whole_settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Added when the answer is made whole in memory: it must be bounded then."""


def run_read(engine: Engine, plan: ReadPlan, pipe: AnswerPipe) -> None:
    """Run the plan; the pipe always gets an end."""
    made = encoder(plan.encoding)
    try:
        pipe.end(_run(engine, plan, pipe, made))
    except ClickHouseError as error:
        pipe.end(Failed(error, _trailer(plan.exception_tag, error, made)))
    except BaseException as error:
        wrapped = ClickHouseError.from_engine(error)
        pipe.end(Failed(wrapped, _trailer(plan.exception_tag, wrapped, made)))
        raise


def _run(engine: Engine, plan: ReadPlan, pipe: AnswerPipe, made: Encoder) -> Finished:
    join = joiner(plan.output_format) if plan.streamable else None
    if join is None:
        return _run_whole(engine, plan, pipe, made)
    with engine.handle(plan.settings, plan.database) as handle:
        for chunk in handle.stream(plan.sql, plan.output_format, plan.params):
            if data := made.compress(join.join(chunk)):
                pipe.put(data)
    if join.empty_needs_head:
        # No rows, no chunks; but the format has a head. Only the whole way makes it.
        return _run_whole(engine, plan, pipe, made)
    if tail := made.compress(join.end()) + made.finish():
        pipe.put(tail)
    return Finished()


def _run_whole(engine: Engine, plan: ReadPlan, pipe: AnswerPipe, made: Encoder) -> Finished:
    with engine.handle({**plan.whole_settings, **plan.settings}, plan.database) as handle:
        result = handle.execute(plan.sql, plan.output_format, plan.params)
        body = result.bytes()
        figures = Finished(read_rows=result.rows_read(), read_bytes=result.bytes_read())
    for start in range(0, len(body), _SLICE_BYTES):
        if data := made.compress(body[start : start + _SLICE_BYTES]):
            pipe.put(data)
    if body and (tail := made.finish()):
        pipe.put(tail)
    return figures


def _trailer(tag: str, error: ClickHouseError, made: Encoder) -> bytes:
    """What ClickHouse writes behind a half answer, so that a client can tell it from data."""
    message = str(error).replace("\r\n", "\n").encode("utf-8", "replace")
    marked = tag.encode()
    text = b"\r\n__exception__\r\n" + marked + b"\r\n" + message + b"\n" + str(len(message)).encode()
    return made.compress(text + b" " + marked + b"\r\n__exception__\r\n") + made.finish()
