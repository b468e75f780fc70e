"""One call that several instrumentations recorded counts once, whoever comes first and however often."""

import itertools
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.telemetry import NOW, SECOND, Conversation, id_of, put, record, span

from loopscope_collector.queue import Record
from loopscope_collector.store import StoreUnavailable
from loopscope_schemas import attributes as at

NATIVE = "com.anthropic.sdk.python"
GENAI = "opentelemetry.instrumentation.genai.anthropic"
OPENLLMETRY = "opentelemetry.instrumentation.anthropic"
SCOPES = (NATIVE, GENAI, OPENLLMETRY)
MESSAGES = '[{"role":"user","parts":[{"type":"text","content":"hello"}]}]'


def foreign(
    name: str,
    *,
    response_id: str | None,
    trace: str,
    parent: str = "",
    start: int = NOW,
    end: int | None = None,
    content: bool = False,
    status: int = 1,
    model: str = "claude-sonnet-4-6",
    usage: bool = True,
) -> Span:
    """A call as an instrumentation of the conventions records it."""
    made = span(name, trace=trace, parent=parent, start=start, end=end, status=status)
    put(
        made,
        {
            at.OPERATION_NAME: "chat",
            at.PROVIDER_NAME: "anthropic",
            at.REQUEST_MODEL: model,
            at.RESPONSE_ID: response_id,
            at.USAGE_INPUT_TOKENS: 101 if usage else None,
            at.USAGE_OUTPUT_TOKENS: 11 if usage else None,
            at.INPUT_MESSAGES: MESSAGES if content else None,
        },
    )
    return made


def one_run(name: str = "run", calls: int = 2) -> Conversation:
    """A run of ours."""
    run = Conversation(name=name)
    for number in range(calls):
        run.call(f"question {number}", [{"type": "text", "text": "an answer"}])
    run.end()
    return run


def shadows(run: Conversation, scope: str, *, trace: str, content: bool = False, slack: int = 1_000_000) -> list[Span]:
    """The same calls as another instrumentation saw them, a little wider, under a span of the host."""
    calls = [item for item in run.spans if "/call" in item.name]
    made = [
        foreign(
            f"{scope}/{item.name}",
            response_id=f"msg_{run.name}_{number}",
            trace=trace,
            parent=f"{trace}/host",
            start=item.start_time_unix_nano - slack,
            end=item.end_time_unix_nano + slack,
            content=content,
        )
        for number, item in enumerate(calls, 1)
    ]
    host = span(f"{trace}/host", trace=trace, start=run.start - SECOND, end=run.clock + SECOND)
    return [*made, host]


TOTALS = (
    "SELECT count(), sum(llm_calls), sum(tool_calls), sum(errors), sum(input_tokens), sum(output_tokens), "
    "sum(cost_usd), sum(cost_unknown_calls), sum(turns) FROM db.runs"
)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("order", ["before", "after", "together"])
def test_with_ours_and_another(world: Any, scope: str, content: bool, order: str) -> None:
    """The other's spans are flagged, its run is no second run, and everything can still be found."""
    run = one_run()
    others = record(shadows(run, scope, trace="host", content=content), scope=scope)
    ours = record(run.spans)
    match order:
        case "before":
            world.write(others)
            assert world.rows("SELECT count() FROM db.runs") == [(1,)]
            world.write(ours)
        case "after":
            world.write(ours)
            world.write(others)
        case _:
            world.write(ours, others)
    (found,) = world.dicts("SELECT * FROM db.runs")
    assert (found["run_id"], found["llm_calls"], found["turns"], found["input_tokens"]) == (run.run_id, 2, 2, 101 + 102)
    calls = {row[0]: row[1:] for row in world.rows("SELECT span_id, dialect, duplicate_of, run_id FROM db.calls")}
    assert len(calls) == 4
    for number in (1, 2):
        ours_id = id_of(f"run/call{number}", 8).hex()
        assert calls[ours_id][1] is None
        assert calls[id_of(f"{scope}/run/call{number}", 8).hex()][1] == ours_id
    assert world.rows("SELECT count() FROM db.turns") == [(2,)]
    (hidden,) = world.dicts("SELECT run_id, duplicate_of, llm_calls, cost_usd FROM db.duplicate_runs")
    assert hidden == {"run_id": id_of("host", 16).hex(), "duplicate_of": run.run_id, "llm_calls": 0, "cost_usd": None}
    assert world.rows("SELECT count(), uniqExact(duplicate_of_run) FROM db.spans WHERE duplicate_of != ''") == [(2, 1)]


def test_three_recordings_of_a_call(world: Any) -> None:
    """Without ours, who has the content counts; when ours comes, it counts; nothing of it depends on a collector."""
    run = one_run(calls=1)
    native, genai = shadows(run, NATIVE, trace="host")[:1], shadows(run, GENAI, trace="host", content=True)[:1]
    world.write(record(native, scope=NATIVE))
    world.write(record(genai, scope=GENAI))
    by_dialect = "SELECT dialect, duplicate_of FROM db.calls ORDER BY dialect"
    with_content = genai[0].span_id.hex()
    assert world.rows(by_dialect) == [("anthropic_native", with_content), ("otel_genai", None)]
    assert world.rows("SELECT llm_calls FROM db.runs") == [(1,)]
    world.write(record(run.spans))
    ours = id_of("run/call1", 8).hex()
    assert world.rows(by_dialect) == [("anthropic_native", ours), ("loopscope", None), ("otel_genai", ours)]
    assert world.rows("SELECT run_id, llm_calls FROM db.runs") == [(run.run_id, 1)]


def test_a_run_that_did_more_keeps_the_rest(world: Any) -> None:
    """The host's run has a call that nobody else recorded."""
    run = one_run()
    others = shadows(run, NATIVE, trace="host")
    others.append(foreign("alone", response_id="msg_other", trace="host", start=run.clock))
    world.write(record(others, scope=NATIVE), record(run.spans))
    assert world.rows("SELECT llm_calls FROM db.runs ORDER BY llm_calls") == [(1,), (2,)]
    assert world.rows("SELECT count() FROM db.duplicate_runs") == [(0,)]


def test_in_the_same_run(world: Any) -> None:
    """Where the run is the trace, its totals leave the duplicates out."""
    first = foreign("a", response_id="m1", trace="t", content=True)
    second = foreign("b", response_id="m1", trace="t", parent="a")
    world.write(record([first], scope=GENAI), record([second], scope=NATIVE))
    (found,) = world.dicts("SELECT llm_calls, input_tokens, spans FROM db.runs")
    assert found == {"llm_calls": 1, "input_tokens": 101, "spans": 2}


def test_one_source_never_duplicates_itself(world: Any) -> None:
    """Answers out of a cache repeat their ids; they are calls all the same."""
    calls = [foreign(f"c{number}", response_id="m1", trace="t") for number in range(3)]
    others = [foreign("d", response_id="m1", trace="u", start=NOW + 100 * SECOND)]
    world.write(record(calls, scope=NATIVE), record(others, scope=GENAI))
    assert world.rows("SELECT count() FROM db.calls WHERE duplicate_of IS NULL") == [(4,)]


def test_an_id_of_a_request_is_no_id_of_an_answer(world: Any) -> None:
    """Claude Code is left alone."""
    world.write(
        record([foreign("a", response_id="req_1", trace="t")], scope="com.anthropic.claude_code.tracing"),
        record([foreign("b", response_id="req_1", trace="t", parent="a")], scope=NATIVE),
    )
    assert world.rows("SELECT count() FROM db.calls WHERE duplicate_of IS NULL") == [(2,)]


def test_failed_calls_of_different_processes(world: Any) -> None:
    """At the same moment, but not of one process; or of one, but not at the same moment."""
    for number, (pid, later) in enumerate([(2, 0), (1, 500_000_000)]):
        one = foreign(f"a{number}", response_id=None, trace=f"a{number}", status=2, start=NOW + 9 * number * SECOND)
        other = foreign(
            f"b{number}",
            response_id=None,
            trace=f"b{number}",
            status=2,
            start=one.start_time_unix_nano + later,
            end=one.end_time_unix_nano,
        )
        world.write(record([one], scope=NATIVE, resource={at.PROCESS_PID: 1}))
        world.write(record([other], resource={at.PROCESS_PID: pid}))
    assert world.rows("SELECT count() FROM db.calls WHERE duplicate_of IS NULL") == [(4,)]


@pytest.mark.parametrize("arrangement", ["inside", "beside", "beside our run", "elsewhere"])
def test_failed_calls_have_no_id(world: Any, arrangement: str) -> None:
    """Five at a time, each fails: the span around or beside it, of the same model, with the same times, is the same."""
    ours: list[Span] = []
    others: list[Span] = []
    run = id_of("declared", 16).hex()
    for number in range(5):
        start = NOW + number * 1_000_000
        outer = foreign(
            f"other{number}", response_id=None, trace="t", parent="host", start=start, status=2, usage=False
        )
        places = {"inside": f"other{number}", "beside": "host", "beside our run": "our run", "elsewhere": ""}
        inner = foreign(
            f"ours{number}",
            response_id=None,
            trace=f"ours{number}" if arrangement == "elsewhere" else "t",
            parent=places[arrangement],
            start=start + 1_000,
            end=outer.end_time_unix_nano - 1_000,
            status=2,
            usage=False,
        )
        put(inner, {at.RUN_ID: run})
        ours.append(inner)
        others.append(outer)
    our_run = span("our run", trace="t", parent="host", start=NOW - 1_000)
    put(our_run, {at.RUN_ID: run, at.OPERATION_NAME: "invoke_agent"})
    others.append(foreign("elsewhere", response_id=None, trace="t", parent="host", model="other", status=2))
    world.write(record([*ours, our_run]))
    world.write(record(others[::-1], scope=OPENLLMETRY))
    found = dict(world.rows("SELECT span_id, duplicate_of FROM db.calls WHERE dialect = 'openllmetry'"))
    assert found == {
        **{id_of(f"other{number}", 8).hex(): id_of(f"ours{number}", 8).hex() for number in range(5)},
        id_of("elsewhere", 8).hex(): None,
    }
    assert world.rows("SELECT sum(errors), sum(llm_calls) FROM db.runs") == [(6, 6)]


def test_tool_calls(world: Any) -> None:
    """By the provider's id of the call."""
    run = Conversation()
    run.tool("look", "toolu_1", {"a": 1}, "found")
    run.end()
    (ours,) = [item for item in run.spans if "tool" in item.name]
    other = span("native tool", trace="host", start=ours.start_time_unix_nano, end=ours.end_time_unix_nano)
    put(other, {at.OPERATION_NAME: "execute_tool", at.TOOL_NAME: "look", at.TOOL_CALL_ID: "toolu_1"})
    world.write(record([other], scope=NATIVE), record(run.spans))
    found = world.rows("SELECT dialect, duplicate_of FROM db.tool_calls ORDER BY dialect")
    assert found == [("anthropic_native", ours.span_id.hex()), ("loopscope", None)]
    assert world.rows("SELECT run_id, tool_calls FROM db.runs") == [(run.run_id, 1)]


class Dies:
    """A store that is gone at the n-th request."""

    def __init__(self, store: Any, at_request: int) -> None:
        self._store = store
        self._left = at_request

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("query", "query_arrow", "command", "insert"):
            return found

        def request(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise StoreUnavailable("gone")
            return found(*args, **named)

        return request


def test_dying_at_every_step_changes_nothing(worlds: Callable[..., Any], store: Any) -> None:
    """Another process takes the segment up, whatever its predecessor had come to."""
    run = one_run()
    others = record(shadows(run, NATIVE, trace="host"), scope=NATIVE)
    first = worlds()
    first.write(others, segment="others")
    step = 0
    for step in itertools.count(1):
        dying = type(first)(Dies(store, step))
        try:
            dying.write(record(run.spans), segment="ours")
            break
        except StoreUnavailable:
            continue
    assert step > 8
    assert first.rows("SELECT run_id, llm_calls FROM db.runs") == [(run.run_id, 2)]
    assert first.rows("SELECT count(), countIf(duplicate_of IS NULL) FROM db.calls") == [(4, 2)]


def test_rebuild(world: Any) -> None:
    """What no flag says yet, because the spans were written by a version that knew of none, is found again."""
    run = one_run()
    failing = [
        foreign("x", response_id=None, trace="f", status=2),
        foreign("y", response_id=None, trace="f", parent="x", status=2, start=NOW + 1_000, end=NOW + SECOND - 1_000),
    ]
    world.write(record(shadows(run, NATIVE, trace="host"), scope=NATIVE), record(run.spans))
    world.write(record(failing[:1], scope=GENAI), record(failing[1:], scope=NATIVE))
    expected = world.rows("SELECT span_id, duplicate_of FROM db.calls ORDER BY span_id")
    totals = world.rows(TOTALS)
    world.store.command(
        f"INSERT INTO {world.store.database}.spans_data SELECT * REPLACE ('' AS duplicate_of, '' AS duplicate_of_run, "
        f"version + 1 AS version) FROM (SELECT * FROM {world.store.database}.spans_data FINAL WHERE duplicate_of != '')"
    )
    assert world.rows("SELECT count() FROM db.calls WHERE duplicate_of IS NULL") == [(6,)]
    world.ingest.rebuild_run_states()
    assert world.rows("SELECT span_id, duplicate_of FROM db.calls ORDER BY span_id") == expected
    assert world.rows(TOTALS) == totals


def recorded_by(number: int, sources: Sequence[str]) -> list[Record]:
    """One call, as each of some sources records it; each in a run of its own."""
    start = NOW + number * 3 * SECOND
    made: list[Record] = []
    for depth, source in enumerate(sources):
        item = foreign(
            f"{source}{number}",
            response_id=f"msg_{number}",
            trace=f"{source} trace {number // 2}",
            start=start + depth * 1_000,
            end=start + SECOND - depth * 1_000,
            content=source == GENAI,
        )
        if source == "loopscope":
            put(item, {at.RUN_ID: id_of(f"ours {number // 2}", 16).hex()})
        made.append(record([item], scope=source))
    return made


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_delivery_gives_the_totals_of_a_plain_recount(worlds: Callable[..., Any], data: st.DataObject) -> None:
    """Calls recorded by one to four sources, delivered in any order, split and repeated, to two collectors."""
    chosen = data.draw(
        st.lists(
            st.lists(st.sampled_from(["loopscope", *SCOPES]), min_size=1, max_size=4, unique=True),
            min_size=1,
            max_size=4,
        )
    )
    records = [item for number, sources in enumerate(chosen) for item in recorded_by(number, sources)]
    deliveries = data.draw(st.permutations([*records, *data.draw(st.lists(st.sampled_from(records), max_size=4))]))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(deliveries), max_size=len(deliveries)))
    some, other = worlds(), worlds()
    for table in ("spans_data", "run_state_data"):
        some.store.command(f"TRUNCATE TABLE {some.store.database}.{table}")
    waiting: list[Record] = []
    for item, cut in zip(deliveries, cuts, strict=True):
        waiting.append(item)
        if cut:
            (some if len(waiting) % 2 else other).write(*waiting)
            waiting = []
    if waiting:
        other.write(*waiting)
    ((runs, calls, tools, errors, tokens_in, tokens_out, cost, unknown, turns),) = some.rows(TOTALS)
    number = len(chosen)
    assert (calls, tools, errors, tokens_in, tokens_out, unknown, turns) == (
        number, 0, 0, 101 * number, 11 * number, 0, number,
    )  # fmt: skip
    assert cost == number * (101 * Decimal("0.000003") + 11 * Decimal("0.000015"))
    ranks = ["loopscope", GENAI]
    first = [next((name for name in ranks if name in sources), min(sources)) for sources in chosen]
    assert runs == len({(name, index // 2) for index, name in enumerate(first)})
    counted = some.rows("SELECT scope FROM db.spans WHERE kind = 'llm' AND duplicate_of IS NULL ORDER BY scope")
    assert [row[0] for row in counted] == sorted(first)
