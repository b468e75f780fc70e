"""Plays the whole demo with the real SDK and holds what was recorded against `expected.yml`.

The stand-in's own log is the account that cannot be wrong about calls and tokens; what the agents' processes exported
must say the same, and add runs, outcomes and tools.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loopscope.demo.catalog import SCENES, airline_scene
from loopscope.demo.compare import Expected, compare, load_expected
from loopscope.demo.observed import CALL_FIGURES, RUN_FIGURES, TOKEN_FIGURES, TOOL_FIGURES, from_log, from_spans
from loopscope.demo.run import DEFAULT_DATA, Played, choose, main, run_demo
from loopscope.stub import LogEntry, StubServer
from loopscope_schemas import attributes as at

from .otlp_sink import OtlpSink

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Recorded:
    """The demo, played once for all tests of this module."""

    played: list[Played]
    log: list[LogEntry]
    spans: list[dict[str, Any]]
    markers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    environment = {"LOOPSCOPE_SPOOL_DIR": str(tmp_path_factory.mktemp("spool"))}
    with StubServer() as stub, OtlpSink() as sink:
        played = run_demo(SCENES, stub, sink.url, environment=environment)
        yield Recorded(played, stub.log.entries(), sink.spans(), sink.markers())


def expected(*scenes: str) -> Expected:
    wanted = load_expected()
    return {name: wanted[name] for name in (scenes or [scene.name for scene in SCENES])}


def test_every_scene_is_played_without_an_error(recorded: Recorded) -> None:
    assert [one for one in recorded.played if one.error] == []
    assert [one.scene for one in recorded.played] == [scene.name for scene in SCENES]


def test_the_stand_in_counted_what_is_expected(recorded: Recorded) -> None:
    assert compare(expected(), from_log(recorded.log), (*CALL_FIGURES, *TOKEN_FIGURES)) == []


def test_what_was_exported_says_the_same(recorded: Recorded) -> None:
    observed = from_spans(recorded.spans)
    assert compare(expected(), observed, (*CALL_FIGURES, *TOOL_FIGURES, *TOKEN_FIGURES)) == []
    # The killed run has no end; that it crashed is found by the collector, from its silence.
    ended = {name: agents for name, agents in expected().items() if name != "killed"}
    assert compare(ended, observed, RUN_FIGURES) == []
    assert observed["batch-translator"]["runs"] == 0


def test_the_killed_run_was_announced(recorded: Recorded) -> None:
    runs = [
        marker
        for marker in recorded.markers
        if marker[at.AGENT_NAME] == "batch-translator" and marker[at.OPERATION_NAME] == "invoke_agent"
    ]
    turns = [span for span in recorded.spans if span[at.AGENT_NAME] == "batch-translator" and at.RESPONSE_ID in span]
    assert len({marker[at.RUN_ID] for marker in runs}) == 1
    assert {span[at.RUN_ID] for span in turns} == {runs[0][at.RUN_ID]}
    assert sorted(span[at.TURN] for span in turns) == [1, 2, 3, 4, 5]


def test_every_request_was_recorded_as_it_was_sent(recorded: Recorded) -> None:
    """By response id, the recorded body of each call equals, as JSON, what the stand-in received."""
    sent = {entry.response["id"]: entry for entry in recorded.log if entry.response and entry.status == 200}
    calls = {span[at.RESPONSE_ID]: span for span in recorded.spans if at.RESPONSE_ID in span}
    assert set(calls) == set(sent)
    different = [
        key for key, entry in sent.items() if json.loads(calls[key][at.REQUEST_BODY]) != json.loads(entry.body)
    ]
    assert different == []


def test_hostile_text_comes_out_as_it_went_in(recorded: Recorded) -> None:
    from loopscope.demo.hostile import AGENT, TOPICS

    inputs = {
        json.loads(span[at.RUN_INPUT])
        for span in recorded.spans
        if span[at.AGENT_NAME] == AGENT and span[at.OPERATION_NAME] == "invoke_agent"
    }
    results = {
        json.loads(span[at.TOOL_CALL_RESULT])
        for span in recorded.spans
        if span[at.AGENT_NAME] == AGENT and span[at.OPERATION_NAME] == "execute_tool"
    }
    assert inputs == {topic for topic, _, _ in TOPICS.values()}
    assert results == {found for _, found, _ in TOPICS.values()}


def test_the_recorded_airline_conversations(tmp_path: Path) -> None:
    data = next((path for path in (DEFAULT_DATA, Path("..", DEFAULT_DATA)) if path.is_file()), None)
    if data is None:
        pytest.skip(f"there are no recorded conversations at {DEFAULT_DATA}")
    with StubServer() as stub, OtlpSink() as sink:
        environment = {"LOOPSCOPE_SPOOL_DIR": str(tmp_path)}
        played = run_demo([airline_scene(data)], stub, sink.url, data=data, environment=environment)
        assert played[0].error is None
        assert compare(expected("airline"), from_log(stub.log.entries()), (*CALL_FIGURES, *TOKEN_FIGURES)) == []
        assert compare(expected("airline"), from_spans(sink.spans())) == []


def test_expected_covers_every_agent_of_every_scene() -> None:
    scenes = (*SCENES, airline_scene(Path()))
    agents = {name: set(agents) for name, agents in load_expected().items()}
    assert agents == {scene.name: set(scene.agents) for scene in scenes}
    figures = {*RUN_FIGURES, *CALL_FIGURES, *TOOL_FIGURES, *TOKEN_FIGURES}
    for scene in load_expected().values():
        for wanted in scene.values():
            assert figures <= set(wanted)
            assert sum(wanted["outcomes"].values()) == wanted["runs"]


def test_differences_are_named() -> None:
    wanted: Expected = {"a": {"agent": {"runs": 2, "outcomes": {"failed": 2}, "tokens": 7}}, "b": {"gone": {"runs": 1}}}
    seen = {"agent": {"runs": 2, "outcomes": {"failed": 1, "completed": 1}}}
    assert compare(wanted, seen) == [
        "a: agent: outcomes is {'failed': 1, 'completed': 1}, expected {'failed': 2}",
        "a: agent: tokens was not observed, expected 7",
        "b: nothing was seen of the agent gone",
    ]
    assert compare(wanted, seen, ["runs"]) == ["b: nothing was seen of the agent gone"]


def test_the_runner_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.jsonl.gz"
    assert choose(["nonsense"], missing) == (
        "there is no scene 'nonsense'; known: " + ", ".join(scene.name for scene in SCENES)
    )
    assert "needs recorded conversations" in str(choose(["airline"], missing))
    assert [scene.name for scene in choose([], missing)] == [scene.name for scene in SCENES]  # pyright: ignore
    assert "airline: skipped" in capsys.readouterr().out
    assert main(["--endpoint", "http://127.0.0.1:9", "--wait", "0", "--only", "support"]) == 1
    assert "no collector answers at http://127.0.0.1:9/healthz" in capsys.readouterr().err


def test_a_scene_that_fails_is_reported_and_the_others_are_played(tmp_path: Path) -> None:
    lines: list[str] = []
    with StubServer() as stub, OtlpSink() as sink:
        scenes = [scene for scene in SCENES if scene.name in ("not-found", "house-model")]
        environment = {"LOOPSCOPE_SPOOL_DIR": str(tmp_path)}
        broken = {**environment, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
        failed = run_demo(scenes[:1], stub, sink.url, say=lines.append, environment=broken)
        played = run_demo(scenes[1:], stub, sink.url, say=lines.append, environment=environment)
    assert "APIConnectionError" in str(failed[0].error)
    assert played[0].error is None
    assert lines[0].startswith("not-found    failed with exit code 1")
    assert lines[1].startswith("house-model  ok")
