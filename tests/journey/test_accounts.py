"""The demo through the whole path, held against the stand-in's log, plain recounts and the price library."""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price

from loopscope.demo.catalog import SCENES
from loopscope.demo.compare import compare, load_expected
from loopscope.demo.observed import from_store, tokens
from loopscope.demo.run import Played, run_demo
from loopscope.stub import LogEntry, StubServer
from loopscope_schemas.content import dump, parse
from loopscope_schemas.recall import fetch_run

from .collector import Collector, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Demo:
    """The demo, played once into a real collector."""

    played: list[Played]
    log: list[LogEntry]
    store: Any
    collector: Collector

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of a SELECT by a reader."""
        return list(self.store.query(sql, parameters=dict(parameters or {})).result_rows)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    environment = {"LOOPSCOPE_CRASH_AFTER_SECONDS": "12"}
    with Collector(folder / "data", environment=environment) as collector, StubServer() as stub:
        played = run_demo(
            SCENES, stub, collector.addresses["otlp-http"], environment={"LOOPSCOPE_SPOOL_DIR": str(folder / "spool")}
        )
        found = Demo(played, stub.log.entries(), collector.client(), collector)
        eventually([], lambda: compare(load_expected_here(), from_store(found.store, agents())), 90)
        yield found


def load_expected_here() -> Any:
    wanted = load_expected()
    return {scene.name: wanted[scene.name] for scene in SCENES}


def agents() -> set[str]:
    return {agent for scene in load_expected_here().values() for agent in scene}


def test_every_scene_is_as_expected(demo: Demo) -> None:
    """Runs, outcomes (the killed run has crashed), calls, tool calls and tokens of every scene."""
    assert [one for one in demo.played if one.error] == []
    assert compare(load_expected_here(), from_store(demo.store, agents())) == []


def test_the_killed_run_keeps_every_turn(demo: Demo) -> None:
    """All turns that ended before the kill are there, and the run is shown as crashed, without an end."""
    rows = demo.query(
        "SELECT outcome, ended_at, turns, llm_calls, tool_calls FROM runs WHERE agent = 'batch-translator'"
    )
    assert rows == [("crashed", None, 5, 5, 5)]


def test_every_request_is_rebuilt_exactly(demo: Demo) -> None:
    """For every answered call, what is joined from the store equals the body that the stand-in received."""
    sent = {entry.response["id"]: entry.body for entry in demo.log if entry.response and entry.ended == "answered"}
    response_ids = dict(demo.query("SELECT span_id, response_id FROM calls WHERE response_id IS NOT NULL"))
    assert set(sent) <= set(response_ids.values())
    different: list[str] = []
    compared: set[str] = set()
    for (run_id,) in demo.query("SELECT DISTINCT run_id FROM calls"):
        for call in fetch_run(demo.query, run_id):
            response_id = str(response_ids.get(call.span_id))
            if response_id in sent:
                compared.add(response_id)
                if call.request() != parse(sent[response_id]):
                    different.append(response_id)
    assert different == []
    assert compared == set(sent)


def test_every_answer_is_rebuilt_exactly(demo: Demo) -> None:
    """The answer's id, content, stop reason and usage, for answers that were not streamed: all of it, as sent."""
    sent = {
        entry.response["id"]: entry.response
        for entry in demo.log
        if entry.response and entry.ended == "answered" and not entry.stream
    }
    response_ids = dict(demo.query("SELECT span_id, response_id FROM calls WHERE response_id IS NOT NULL"))
    compared = 0
    for (run_id,) in demo.query("SELECT DISTINCT run_id FROM calls"):
        for call in fetch_run(demo.query, run_id):
            wanted = sent.get(response_ids.get(call.span_id) or "")
            if wanted is not None:
                answer: Any = call.response()
                assert {key: plain(value) for key, value in answer.items()} == wanted
                compared += 1
    assert compared == len(sent)


def plain(value: Any) -> Any:
    """Exact JSON as json.loads would have given it, for documents without exotic numbers."""
    return json.loads(dump(value))


def test_totals_equal_a_plain_recount(demo: Demo) -> None:
    """Tokens by kind and cost of every agent, recounted from the log with the price library, to the last digit."""
    wanted: dict[str, Counter[str]] = {}
    costs: dict[str, Decimal] = {}
    unpriced: Counter[str] = Counter()
    for entry in demo.log:
        if entry.script is None or not entry.path.endswith("/messages") or not entry.usage:
            continue
        counted = tokens(entry)
        wanted.setdefault(entry.script, Counter()).update(counted)
        # What an answer that broke off would have cost is not known: its output was not counted to the end.
        cost = price(entry) if entry.ended == "answered" else None
        if cost is None:
            unpriced[entry.script] += 1
        else:
            costs[entry.script] = costs.get(entry.script, Decimal(0)) + cost
    rows = demo.query(
        "SELECT agent, sum(input_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(output_tokens), "
        "sum(cost_usd) FROM runs GROUP BY agent"
    )
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    assert {row[0]: [int(value or 0) for value in row[1:5]] for row in rows} == {
        agent: [counts[name] for name in names] for agent, counts in wanted.items()
    }
    assert {row[0]: row[5] for row in rows if row[5] is not None} == {
        agent: cost for agent, cost in costs.items() if cost is not None
    }
    assert unpriced == {"faq-bot": 4, "newsletter-writer": 1}
    unknown = demo.query(
        "SELECT agent, sum(cost_unknown_calls) FROM runs GROUP BY agent HAVING sum(cost_unknown_calls) > 0"
    )
    assert dict(unknown) == unpriced
    assert demo.query("SELECT sum(cost_usd) FROM runs WHERE agent = 'faq-bot'") == [(None,)]


def price(entry: LogEntry) -> Decimal | None:
    """What the price library says, rounded half-even to 12 decimals; None where it does not know the model."""
    counted = tokens(entry)
    usage: Mapping[str, Any] = entry.usage or {}
    creation: Mapping[str, Any] = usage.get("cache_creation") or {}
    searches: Mapping[str, Any] = usage.get("server_tool_use") or {}
    try:
        found = calc_price(
            Usage(
                input_tokens=counted["input_tokens"],
                cache_read_tokens=counted["cache_read_tokens"],
                cache_write_tokens=counted["cache_write_tokens"],
                cache_write_1h_tokens=int(creation.get("ephemeral_1h_input_tokens") or 0),
                output_tokens=counted["output_tokens"],
                web_searches=int(searches.get("web_search_requests") or 0),
            ),
            model_ref=str(entry.request["model"]),
            provider_id="anthropic",
            genai_request_timestamp=dt.datetime.now(dt.UTC),
        )
    except LookupError:
        return None
    return found.total_price.quantize(Decimal("0.000000000001"))


def test_agent_and_collector_agree_on_every_cost(demo: Demo) -> None:
    """The cost that the agent's process computed is kept beside the collector's, and they are equal."""
    assert demo.query(
        "SELECT count() FROM calls WHERE cost_usd IS DISTINCT FROM reported_cost_usd AND NOT partial"
    ) == [(0,)]
    assert demo.query("SELECT count() > 100 FROM calls WHERE cost_usd IS NOT NULL AND price_version IS NOT NULL") == [
        (True,)
    ]


def test_run_states_equal_the_sum_of_their_calls(demo: Demo) -> None:
    """What is kept for each run, recomputed at every batch, is what its calls add up to now."""
    # A request that the model's API refused costs nothing that could be unknown.
    unknown = "countIf(cost_usd IS NULL AND NOT (status = 'error' AND input_tokens IS NULL AND NOT partial))"
    totals = f"count(), sum(input_tokens), sum(output_tokens), sum(cost_usd), {unknown}"
    by_calls = demo.query(f"SELECT run_id, {totals} FROM calls GROUP BY run_id ORDER BY run_id")
    by_runs = demo.query(
        "SELECT run_id, llm_calls, input_tokens, output_tokens, cost_usd, cost_unknown_calls FROM runs "
        "WHERE llm_calls > 0 ORDER BY run_id"
    )
    assert by_runs == by_calls
