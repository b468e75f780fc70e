"""What became of the demo, counted for each agent: from the store, from recorded spans, or from the stand-in's log.

Each of the three gives the same shape, `{agent: {figure: value}}`, which `compare` holds against `expected.yml`. The
log knows nothing of runs and tools; what a source cannot know is absent from its figures, never zero.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from loopscope.stub import LogEntry
from loopscope_schemas import attributes as at

Figures = dict[str, Any]

RUN_FIGURES: Final = ("runs", "outcomes", "tasks")
CALL_FIGURES: Final = ("llm_calls", "llm_errors")
TOOL_FIGURES: Final = ("tool_calls", "tool_errors")
TOKEN_FIGURES: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "thinking_tokens",
)

_RUNS: Final = "SELECT agent, task_id, outcome FROM runs WHERE agent IN {agents:Array(String)}"
_CALLS: Final = """
SELECT c.agent AS name, count() AS llm_calls, countIf(c.status = 'error') AS llm_errors,
    sum(c.input_tokens) AS input_tokens, sum(c.cache_read_tokens) AS cache_read_tokens,
    sum(c.cache_write_tokens) AS cache_write_tokens, sum(c.output_tokens) AS output_tokens,
    sum(c.thinking_tokens) AS thinking_tokens
FROM calls AS c WHERE c.agent IN {agents:Array(String)} GROUP BY c.agent
"""
_TOOLS: Final = """
SELECT r.agent AS name, count() AS tool_calls, countIf(t.status = 'error') AS tool_errors
FROM tool_calls AS t INNER JOIN runs AS r ON r.run_id = t.run_id
WHERE r.agent IN {agents:Array(String)} AND NOT t.inferred GROUP BY r.agent
"""


def from_store(store: Any, agents: Iterable[str]) -> dict[str, Figures]:
    """Figures from the views of the read contract; `store` is a clickhouse-connect client of the database."""
    parameters = {"agents": sorted(agents)}

    def rows(query: str) -> list[dict[str, Any]]:
        return list(store.query(query, parameters=parameters).named_results())

    observed = _runs((row["agent"], row["task_id"], row["outcome"]) for row in rows(_RUNS))
    for figures in observed.values():
        figures.update(dict.fromkeys((*TOOL_FIGURES, *CALL_FIGURES, *TOKEN_FIGURES), 0))
    for query in (_CALLS, _TOOLS):
        for row in rows(query):
            named = {name: int(value or 0) for name, value in row.items() if name != "name"}
            observed.setdefault(row["name"], {}).update(named)
    return observed


def from_log(entries: Iterable[LogEntry]) -> dict[str, Figures]:
    """Figures from the stand-in's log: LLM calls and tokens, by the name of the script, which is the agent's.

    A call is one request and the client's retries of it. An answer that broke off keeps its input tokens; the output
    tokens that it had announced are a placeholder, and count as nothing.
    """
    observed: dict[str, Figures] = {}
    for entry in entries:
        if entry.script is None or not entry.path.endswith("/messages"):
            continue
        figures = observed.setdefault(entry.script, dict.fromkeys((*CALL_FIGURES, *TOKEN_FIGURES, "http_requests"), 0))
        failed = entry.ended != "answered"
        figures["http_requests"] += 1
        figures["llm_calls"] += entry.retry == 0
        # A retry means that the attempt before it was not the end of the call.
        figures["llm_errors"] += failed - (entry.retry > 0)
        for name, value in tokens(entry).items():
            figures[name] += value
    return observed


def tokens(entry: LogEntry) -> dict[str, int]:
    """Tokens by kind of one request; input tokens include those read from and written to the cache."""
    usage: Mapping[str, Any] = entry.usage or {}
    if not usage:
        return {}
    read = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    details: Mapping[str, Any] = usage.get("output_tokens_details") or {}
    return {
        "input_tokens": int(usage["input_tokens"]) + read + written,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": int(usage["output_tokens"]) if entry.ended == "answered" else 0,
        "thinking_tokens": int(details.get("thinking_tokens") or 0),
    }


def from_spans(spans: Iterable[Mapping[str, Any]]) -> dict[str, Figures]:
    """Figures from finished spans, each the mapping of its attributes, with `error` (bool) beside them."""
    found = list(spans)
    runs = [span for span in found if span.get(at.OPERATION_NAME) == "invoke_agent"]
    observed = _runs((span[at.AGENT_NAME], span.get(at.TASK_ID), span[at.RUN_OUTCOME]) for span in runs)
    for span in found:
        agent = cast("str", span.get(at.AGENT_NAME))
        figures = observed.setdefault(agent, {"runs": 0, "outcomes": {}, "tasks": 0})
        for name in (*CALL_FIGURES, *TOOL_FIGURES, *TOKEN_FIGURES):
            figures.setdefault(name, 0)
        operation = span.get(at.OPERATION_NAME)
        if operation == "execute_tool":
            figures["tool_calls"] += 1
            figures["tool_errors"] += bool(span["error"])
        elif operation == "chat":
            figures["llm_calls"] += 1
            figures["llm_errors"] += bool(span["error"])
            for name, attribute in _SPAN_TOKENS.items():
                figures[name] += int(span.get(attribute) or 0)
    return observed


_SPAN_TOKENS: Final = {
    "input_tokens": at.USAGE_INPUT_TOKENS,
    "cache_read_tokens": at.USAGE_CACHE_READ_TOKENS,
    "cache_write_tokens": at.USAGE_CACHE_WRITE_TOKENS,
    "output_tokens": at.USAGE_OUTPUT_TOKENS,
    "thinking_tokens": at.USAGE_REASONING_TOKENS,
}


def _runs(rows: Iterable[tuple[str, str | None, str]]) -> dict[str, Figures]:
    observed: dict[str, Figures] = {}
    tasks: dict[str, set[str]] = {}
    for agent, task, outcome in rows:
        figures = observed.setdefault(agent, {"runs": 0, "outcomes": Counter[str](), "tasks": 0})
        figures["runs"] += 1
        figures["outcomes"][outcome] += 1
        if task:
            tasks.setdefault(agent, set()).add(task)
    for agent, figures in observed.items():
        figures["outcomes"] = dict(figures["outcomes"])
        figures["tasks"] = len(tasks.get(agent, ()))
    return observed
