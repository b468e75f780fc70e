"""One call counts once, with the real instrumentations of others around the same SDK, through a real collector."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from loopscope.stub import StubServer

from .collector import Collector, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AGENT: Final = Path(__file__).with_name("side_by_side_agent.py")
PACKAGES: Final = {
    "openinference": "openinference-instrumentation-anthropic",
    "openllmetry": "opentelemetry-instrumentation-anthropic",
    "otel_genai": "opentelemetry-instrumentation-genai-anthropic",
    "anthropic_native": "anthropic",
    "loopscope": "loopscope",
}
ANSWERED: Final = 6
FAILED: Final = 3
COMBINATIONS: Final = [
    "loopscope,anthropic_native",
    "loopscope,openinference",
    "loopscope,openllmetry",
    "loopscope,otel_genai",
    "loopscope,anthropic_native,openinference,openllmetry",
    "loopscope,anthropic_native,otel_genai",
    "openinference",
    "openinference,anthropic_native",
    "openllmetry,anthropic_native",
]


@dataclass(frozen=True)
class Place:
    """Where agents send to and call."""

    collector: Collector
    stub: StubServer
    spool: Path

    def ask(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a SELECT by a reader."""
        with self.collector.client() as client:
            return list(client.query(sql, parameters=parameters).result_rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("side_by_side")
    with Collector(folder / "data") as collector, StubServer() as stub:
        yield Place(collector, stub, folder / "spool")


def play(place: Place, name: str, where: str, instrumentations: str) -> dict[str, int]:
    """Run the agent; what its calls used, as it saw them."""
    environment = {
        **os.environ,
        "LOOPSCOPE_SPOOL_DIR": str(place.spool),
        "ANTHROPIC_OPEN_TELEMETRY": "true" if "anthropic_native" in instrumentations else "false",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    }
    addresses = (place.collector.addresses["otlp-http"], place.stub.url)
    done = subprocess.run(
        [sys.executable, str(AGENT), *addresses, name, where, instrumentations],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("where", ["bare", "run", "host"])
@pytest.mark.parametrize("instrumentations", COMBINATIONS)
def test_each_call_counts_once(place: Place, instrumentations: str, where: str) -> None:
    """Totals are those of the calls, the second recordings are there and flagged, whoever made them."""
    chosen = instrumentations.split(",")
    for one in chosen:
        try:
            importlib.metadata.version(PACKAGES[one])
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{PACKAGES[one]} is not installed")
    if "anthropic_native" in chosen and importlib.util.find_spec("anthropic.lib.open_telemetry") is None:
        version = importlib.metadata.version("anthropic")
        if version.startswith(("0.", "1.0.")):
            pytest.skip(f"anthropic {version} has no tracing of its own")
    if "loopscope" not in chosen and where == "run":
        pytest.skip("only Loopscope has runs")
    name = f"{where}-{'-'.join(chosen)}"
    used = play(place, name, where, instrumentations)
    # OpenLLMetry makes no span of a call that fails.
    by_dialect = "SELECT dialect, count() FROM calls WHERE agent = {agent:String} GROUP BY dialect"
    eventually(set(chosen), lambda: {row[0] for row in place.ask(by_dialect, agent=name)})
    totals = (
        "SELECT sum(llm_calls), sum(errors), sum(input_tokens), sum(output_tokens), sum(turns) FROM runs "
        "WHERE agent = {agent:String}"
    )
    # Where OpenLLMetry's recording counts, so does its figure: of a stream it adds the placeholder of the beginning.
    output = used["output"] + (1 if chosen[0] == "openllmetry" else 0)
    expected = [(ANSWERED + FAILED, FAILED, used["input"], output, ANSWERED + FAILED)]
    eventually(expected, lambda: place.ask(totals, agent=name), 30)
    counted = "SELECT count() FROM calls WHERE agent = {agent:String} AND duplicate_of IS NULL"
    assert place.ask(counted, agent=name) == [(ANSWERED + FAILED,)]
    recordings = dict(place.ask(by_dialect, agent=name))
    assert all(count >= ANSWERED for count in recordings.values()), recordings
    flagged = "SELECT count() FROM calls WHERE agent = {agent:String} AND duplicate_of IS NOT NULL"
    assert place.ask(flagged, agent=name) == [(sum(recordings.values()) - ANSWERED - FAILED,)]
    if "loopscope" in chosen:
        kept = "SELECT DISTINCT dialect FROM calls WHERE agent = {agent:String} AND duplicate_of IS NULL"
        assert place.ask(kept, agent=name) == [("loopscope",)]
        if where != "bare":
            assert place.ask("SELECT count() FROM runs WHERE agent = {agent:String}", agent=name) == [(1,)]
    unknown = place.ask("SELECT sum(cost_unknown_calls) FROM runs WHERE agent = {agent:String}", agent=name)
    assert unknown == [(0,)]
