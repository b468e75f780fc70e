"""The order of the writer: death at any step, repeats, refusals, a store that is away."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.telemetry import NOW, SECOND, Conversation, MemorySegment, record, span

from loopscope_collector.ingest import Ingest
from loopscope_collector.metrics import Metrics
from loopscope_collector.queue import Record
from loopscope_collector.store import Store, StoreRefused, StoreUnavailable
from loopscope_schemas import migrate, recall
from loopscope_schemas.content import dump, parse
from loopscope_schemas.dsn import ServerDsn, parse_dsn
from loopscope_schemas.rows import NANOSECONDS_PER_DAY

_numbers = itertools.count()
TOTALS = (
    "SELECT count(), sum(llm_calls), sum(tool_calls), sum(input_tokens), sum(output_tokens), "
    "sum(cache_read_tokens), toString(sum(cost_usd)) FROM db.runs"
)


def conversation(name: str, turns: int = 3, **more: Any) -> Conversation:
    """A finished run with tools, whose history is sent again with each call."""
    run = Conversation(name=name, **more)
    said: Any = f"question of {name}"
    for turn in range(turns):
        call = {"type": "tool_use", "id": f"{name}-{turn}", "name": "look", "input": {"turn": turn}}
        usage = {"input_tokens": 100 + turn, "output_tokens": 7, "cache_read_input_tokens": turn * 10}
        run.call(said, [call], stop="tool_use", usage=usage)
        run.tool("look", f"{name}-{turn}", {"turn": turn}, f"result {turn} of {name}")
        said = [{"type": "tool_result", "tool_use_id": f"{name}-{turn}", "content": f"result {turn} of {name}"}]
    run.end()
    return run


def recount(runs: list[Conversation]) -> list[tuple[Any, ...]]:
    """What `TOTALS` must give, from what was sent: prices per million of the one model, by hand."""
    calls = tools = tokens_in = tokens_out = read = 0
    cost = Decimal(0)
    for run in runs:
        for _, answered in run.bodies.values():
            usage = json.loads(answered)["usage"]
            fresh, cached, output = usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]
            calls, tokens_in, tokens_out, read = (
                calls + 1,
                tokens_in + fresh + cached,
                tokens_out + output,
                read + cached,
            )
            cost += (fresh * Decimal(3) + cached * Decimal("0.3") + output * Decimal(15)) / 1_000_000
        tools += sum(made.name.startswith(f"{run.name}/tool") for made in run.spans)
    return [(len(runs), calls, tools, tokens_in, tokens_out, read, f"{cost.normalize():f}")]


def assert_whole(world: Any, runs: list[Conversation]) -> None:
    """Totals and every text."""
    assert world.rows(TOTALS) == recount(runs)
    assert_whole_texts(world, runs)


def assert_whole_texts(world: Any, runs: list[Conversation]) -> None:
    """Every request and answer of the runs."""
    for run in runs:
        for call in recall.fetch_run(world.store.query, run.run_id, database=world.store.database):
            assert dump(call.request()) == dump(parse(run.bodies[call.span_id][0]))
            assert dump(call.response()) == dump(parse(run.bodies[call.span_id][1]))


class Death(BaseException):
    """The process is gone: nothing in it goes on, nothing it knew is left."""


class Mortal(Store):
    """A store whose process dies at its n-th request, before it is sent or after it was answered."""

    def __init__(self, dsn: ServerDsn, at: int, *, after: bool) -> None:
        super().__init__(dsn)
        self.left, self.after, self.asked = at, after, 0

    def _step(self, work: Callable[[], Any]) -> Any:
        self.asked += 1
        dies = self.asked == self.left
        if dies and not self.after:
            raise Death
        answer = work()
        if dies:
            raise Death
        return answer

    def insert(self, table: str, rows: Any, token: str) -> None:
        """Insert, or die."""
        self._step(lambda: super(Mortal, self).insert(table, rows, token))

    def query(self, sql: str, parameters: Any = None) -> Any:
        """Ask, or die."""
        return self._step(lambda: super(Mortal, self).query(sql, parameters))

    def query_arrow(self, sql: str, parameters: Any = None) -> Any:
        """Ask, or die."""
        return self._step(lambda: super(Mortal, self).query_arrow(sql, parameters))


def test_death_at_every_step(store: Store, worlds: Callable[..., Any]) -> None:
    """Each step of the order, before and after: the replay makes it whole, nothing counts twice, no text is lost."""
    dsn = store._dsn  # pyright: ignore[reportPrivateUsage]
    runs: list[Conversation] = []
    deaths = step = 0
    is_over = False
    while not is_over:
        step += 1
        for after in (False, True):
            # One run that began in an earlier segment, one that is new.
            old, new = conversation(f"old-{step}-{after}"), conversation(f"new-{step}-{after}")
            runs += [old, new]
            mortal = Mortal(dsn, -1, after=after)
            ingest = Ingest(mortal, metrics=Metrics())
            ingest.write(MemorySegment(f"first-{step}-{after}", [record(old.spans[:3])]), fail)  # type: ignore[arg-type]
            segment: Any = MemorySegment(f"second-{step}-{after}", [record(old.spans[3:]), record(new.spans)])
            mortal.asked, mortal.left = 0, step
            try:
                ingest.write(segment, fail)
            except Death:
                deaths += 1
                worlds().ingest.write(segment, fail)
            else:
                is_over = True
            mortal.close()
    assert deaths >= 12
    assert_whole(worlds(), runs)
    for table in ("spans_data", "messages_data"):
        key = "trace_id, span_id, version" if table == "spans_data" else "trace_id, hash"
        sql = f"SELECT count() - uniqExact({key}) FROM {store.database}.{table}"
        assert store.query(sql) == [(0,)], table


def fail(item: Record, reason: str) -> None:
    """Nothing is to be set aside."""
    pytest.fail(f"{reason}: {item}")


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.randoms(use_true_random=True), st.integers(1, 4), st.integers(1, 4))
def test_totals_equal_a_recount(worlds: Any, chance: random.Random, runs: int, collectors: int) -> None:
    """Spans in any order, cut into any segments, sent to any collector, many of them twice."""
    made = [conversation(f"run-{next(_numbers)}", chance.randint(1, 4)) for _ in range(runs)]
    spans = [item for run in made for item in run.spans]
    spans += chance.sample(spans, len(spans) // 2)
    chance.shuffle(spans)
    several = [worlds() for _ in range(collectors)]
    for table in ("spans_data", "messages_data", "run_state_data"):
        several[0].store.command(f"TRUNCATE TABLE {several[0].store.database}.{table}")
    while spans:
        size = chance.randint(1, len(spans))
        records = [record([item]) for item in spans[:size]]
        chance.choice(several).write(*records)
        spans = spans[size:]
    assert_whole(several[0], made)
    several[0].ingest.rebuild_run_states()
    assert_whole(several[0], made)


def test_two_collectors_with_caches_of_their_own(worlds: Callable[..., Any]) -> None:
    """Each knows a part; what one marked as seen is in the store for both."""
    run = conversation("shared", 6)
    first, second = worlds(), worlds()
    for index, made in enumerate(run.spans):
        (first, second)[index % 2].write(record([made]))
    assert_whole(first, [run])


def test_a_segment_of_many_days(world: Any) -> None:
    """More days than a server takes partitions in one insert."""
    runs = [conversation(f"day-{day}", 1, start=NOW - day * NANOSECONDS_PER_DAY) for day in range(60)]
    result = world.write(record([made for run in runs for made in run.spans]))
    assert result.spans == 3 * 60
    assert world.rows("SELECT uniqExact(day) FROM db.spans") == [(60,)]
    assert world.rows(TOTALS) == recount(runs)
    assert_whole_texts(world, runs[::20])


def test_garbage_among_records(world: Any) -> None:
    """Set aside with its reason; its neighbours are written."""
    run = conversation("good")
    bad = Record("traces", "protobuf", NOW, b"\xff\xff\xff")
    world.write(record(run.spans[:2]), bad, record(run.spans[2:]))
    assert [item for item, _ in world.aside] == [bad]
    assert "no ExportTraceServiceRequest" in world.aside[0][1]
    assert world.metrics.value("spans_set_aside") == 1
    assert_whole(world, [run])


class Picky(Store):
    """A store that refuses rows of one span."""

    refused = ""

    def insert(self, table: str, rows: Any, token: str) -> None:
        """Insert, unless the span is among the rows."""
        if table == "spans_data" and self.refused in rows.column("name").to_pylist():
            raise StoreRefused("code 117: not this one")
        super().insert(table, rows, token)


def test_a_row_that_the_store_refuses(store: Store, worlds: Callable[..., Any]) -> None:
    """It is found, set aside alone as a record that can be sent again, and costs no other."""
    picky = Picky(store._dsn)  # pyright: ignore[reportPrivateUsage]
    picky.refused = "bad"
    aside: list[tuple[Record, str]] = []
    spans = [span(f"good-{number}") for number in range(20)]
    segment: Any = MemorySegment("s", [record([*spans[:13], span("bad"), *spans[13:]])])
    ingest = Ingest(picky, metrics=Metrics())
    result = ingest.write(segment, lambda item, reason: aside.append((item, reason)))
    assert result.set_aside == 1
    ((item, reason),) = aside
    assert "not this one" in reason
    request = ExportTraceServiceRequest.FromString(item.body)
    assert [found.name for found in request.resource_spans[0].scope_spans[0].spans] == ["bad"]
    world = worlds()
    assert world.rows("SELECT count() FROM db.spans") == [(20,)]
    world.write(item)
    assert world.rows("SELECT count() FROM db.spans") == [(21,)]
    picky.close()


def test_a_store_that_refuses_everything(store: Store) -> None:
    """It is not the rows: nothing is set aside, the segment stays."""

    class Broken(Store):
        def insert(self, table: str, rows: Any, token: str) -> None:
            raise StoreRefused("code 53: type mismatch")

    broken = Broken(store._dsn)  # pyright: ignore[reportPrivateUsage]
    segment: Any = MemorySegment("s", [record([span(f"s{number}") for number in range(200)])])
    with pytest.raises(StoreRefused, match="accepted none"):
        Ingest(broken, metrics=Metrics()).write(segment, fail)
    broken.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A ClickHouse server, as far as one can be had here."""
    with clickhouse_server(tmp_path_factory.mktemp("server") / "data", database_exists=False) as running:
        yield running


@pytest.fixture
def remote(server: ClickHouseServer) -> Iterator[Store]:
    """A store on the server, with a new database."""
    dsn = parse_dsn(server.dsn)
    assert isinstance(dsn, ServerDsn)
    made = Store(dsn, connect_seconds=2, answer_seconds=2)
    made.command(f"DROP DATABASE IF EXISTS {made.database} SYNC")
    migrate.apply(made.query, made.command, migrate.Target(database=made.database))
    yield made
    made.close()


def test_a_server_that_fails_stalls_and_vanishes(server: ClickHouseServer, remote: Store) -> None:
    """Unavailable each time, and whole in the end: the same segment again is the same insert."""
    run = conversation("remote")
    segment: Any = MemorySegment("s", [record(run.spans)])
    ingest = Ingest(remote, metrics=Metrics())
    troubles = 0
    while True:
        # Fail ever later in the order of the writer, now in the process that tried before, now in a new one.
        ingest = ingest if troubles % 2 else Ingest(remote, metrics=Metrics())
        try:
            _fail_after(server, remote, troubles + 1, lambda now=ingest: now.write(segment, fail))
        except StoreUnavailable as error:
            assert "127.0.0.1" in str(error)  # noqa: PT017 - the loop ends where nothing is raised
            troubles += 1
        else:
            break
    later = conversation("later")
    segment = MemorySegment("t", [record(later.spans)])
    server.stall(60)
    with pytest.raises(StoreUnavailable):
        ingest.write(segment, fail)
    server.stall(0)
    server.vanish()
    with pytest.raises(StoreUnavailable):
        ingest.write(segment, fail)
    server.come_back()
    ingest.write(segment, fail)

    class Remote:
        store = remote

        def rows(self, sql: str) -> Any:
            return [tuple(row) for row in remote.query(sql.replace("db.", f"{remote.database}."))]

    assert troubles >= 4
    assert_whole(Remote(), [run, later])


def _fail_after(server: ClickHouseServer, store: Store, requests: int, work: Callable[[], Any]) -> None:
    """Do the work; all requests from the n-th on fail."""
    real_query, real_arrow, real_insert = store.query, store.query_arrow, store.insert
    asked = 0

    def counted(call: Any) -> Any:
        def ask(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == requests:
                server.fail_next(1)
            return call(*arguments)

        return ask

    store.query, store.query_arrow, store.insert = counted(real_query), counted(real_arrow), counted(real_insert)  # type: ignore[method-assign]
    try:
        work()
    finally:
        store.query, store.query_arrow, store.insert = real_query, real_arrow, real_insert  # type: ignore[method-assign]


def test_wrong_password(server: ClickHouseServer) -> None:
    """Said with the address, without the password."""
    dsn = parse_dsn(server.dsn)
    assert isinstance(dsn, ServerDsn)
    store = Store(replace(dsn, password="wrong-secret"))
    with pytest.raises(StoreUnavailable, match=str(server.port)) as caught:
        store.query("SELECT 1")
    assert "wrong-secret" not in str(caught.value)


def test_the_engine_killed_between_inserts(tmp_path: Path) -> None:
    """kill -9 of the embedded engine: unavailable, then whole after its restart."""
    import os
    import signal

    from loopscope_collector.engine import EngineProcess

    with EngineProcess(tmp_path / "data", port=0, write_secret="s") as engine:
        dsn = parse_dsn(engine.write_dsn)
        assert isinstance(dsn, ServerDsn)

        class Killing(Store):
            at = -1

            def insert(self, table: str, rows: Any, token: str) -> None:
                super().insert(table, rows, token)
                if table == "messages_data" and engine.pid and self.at:
                    self.at = 0
                    os.kill(engine.pid, signal.SIGKILL)

        store = Killing(dsn)
        migrate.apply(store.query, store.command, migrate.Target())
        run = conversation("killed", start=NOW + SECOND)
        segment: Any = MemorySegment("s", [record(run.spans)])
        ingest = Ingest(store, metrics=Metrics())
        with pytest.raises(StoreUnavailable):
            ingest.write(segment, fail)
        engine.stop()
        engine.start()
        ingest.write(segment, fail)

        class Local:
            def __init__(self) -> None:
                self.store = store

            def rows(self, sql: str) -> Any:
                return [tuple(row) for row in store.query(sql.replace("db.", "loopscope."))]

        assert_whole(Local(), [run])
        store.close()
