"""Running one statement that answers with rows (or, for the writer, any statement that is no streamed insert).

Runs on a worker thread of the engine child; called by `server`. The answer goes into an `AnswerPipe` as it is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope_collector.engine.compression import Encoder, encoder
from loopscope_collector.engine.errors import TOO_MANY_ROWS_OR_BYTES, ClickHouseError
from loopscope_collector.engine.formats import joiner
from loopscope_collector.engine.handles import Engine
from loopscope_collector.engine.pipes import AnswerPipe, Failed, Finished
from loopscope_collector.engine.statements import without_format

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
    whole_bound_bytes: int = 0
    """Bound on an answer that is made whole in memory, in bytes of the Native format; 0 for none."""


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
    if plan.streamable and plan.whole_bound_bytes:
        _measure(engine, plan)
    with engine.handle(plan.settings, plan.database) as handle:
        result = handle.execute(plan.sql, plan.output_format, plan.params)
        body = result.bytes()
        figures = Finished(read_rows=result.rows_read(), read_bytes=result.bytes_read())
    for start in range(0, len(body), _SLICE_BYTES):
        if data := made.compress(body[start : start + _SLICE_BYTES]):
            pipe.put(data)
    if body and (tail := made.finish()):
        pipe.put(tail)
    return figures


def _measure(engine: Engine, plan: ReadPlan) -> None:
    """Raises ClickHouseError when the answer is too big to be made whole.

    The engine keeps a whole answer outside of `max_memory_usage` and does not heed `max_result_bytes`, so the only
    way to know its size in time is to stream it once and count. Only formats that cannot be streamed pay for this.
    """
    size = 0
    with engine.handle(plan.settings, plan.database) as handle:
        for chunk in handle.stream(without_format(plan.sql), "Native", plan.params):
            size += len(chunk)
            if size > plan.whole_bound_bytes:
                message = (
                    f"an answer in format {plan.output_format} is made whole in memory and this one passes "
                    f"{plan.whole_bound_bytes} bytes; add a LIMIT or use a format that streams (JSONEachRow, Native)"
                )
                raise ClickHouseError(TOO_MANY_ROWS_OR_BYTES, message)


def _trailer(tag: str, error: ClickHouseError, made: Encoder) -> bytes:
    """What ClickHouse writes behind a half answer, so that a client can tell it from data."""
    message = str(error).replace("\r\n", "\n").encode("utf-8", "replace")
    marked = tag.encode()
    text = b"\r\n__exception__\r\n" + marked + b"\r\n" + message + b"\n" + str(len(message)).encode()
    return made.compress(text + b" " + marked + b"\r\n__exception__\r\n") + made.finish()
