"""How long the dashboards take: the queries of their pages, and the pages themselves in a real Chromium.

A store of its own is filled with ordinary runs, a run of 200 spans with full prompts, and one of 3,000. Queries are
timed one by one through the pages' own functions, without caches; a page's query time is their sum, as it asks them one
after the other. Pages are timed from the click, or from the address, until the text looked for is visible; an empty
Streamlit page is timed in the same run, as what the machine and Streamlit cost by themselves.

    python benchmarks/dashboard_pages.py [--runs 20000] [--rounds 15] [--json]
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.dashboards import Dashboards, engine_in, free_port, read_dsn, wait_for
from support.recorded_runs import SECOND, Rows, add_run, connect, migrate, run_id_of, support_turns

BUDGET_RUN_QUERIES_MS = 100.0
BUDGET_LIST_QUERY_MS = 100.0
BUDGET_CLICK_S = 1.5
BUDGET_TYPED_ABOVE_EMPTY_S = 1.0
PROMPT = "You are the support agent of a small shop. " + "Follow the rules of the house to the letter. " * 400
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
Figures = dict[str, float]


def fill(client: Any, runs: int, now: int) -> tuple[str, str]:
    """`runs` ordinary runs of the last day, and the ids of the runs of 200 and of 3,000 spans."""
    rows = Rows()
    template = add_run(rows, 1, support_turns(4), at=now - 120 * SECOND)
    middle = add_run(rows, 2, support_turns(100), at=now - 400 * SECOND, system=PROMPT, agent="middle")
    large = add_run(rows, 3, support_turns(1_500), at=now - 7_000 * SECOND, agent="large")
    rows.insert(client)
    step = 80_000 * SECOND // max(1, runs)
    for start in range(0, runs, 5_000):
        for number in range(start, min(runs, start + 5_000)):
            at = now - 500 * SECOND - number * step
            outcome = "failed" if number % 20 == 0 else "completed"
            rows.runs.append(
                replace(
                    template,
                    day=at // (86_400 * SECOND),
                    run_id=run_id_of(number + 10),
                    trace_id=run_id_of(number + 10),
                    started_at=at,
                    ended_at=at + 9 * SECOND,
                    last_event_at=at + 9 * SECOND,
                    last_seen_at=at + 9 * SECOND,
                    agent=f"agent-{number % 7}",
                    outcome=outcome,
                )
            )
        rows.insert(client)
    return middle.run_id, large.run_id


def median_ms(ask: Callable[[], object], rounds: int) -> float:
    """Median time of a call in ms, after one that warms up."""
    ask()
    times: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def time_queries(middle: str, large: str, now: int, rounds: int) -> Figures:
    """Each question of the two pages."""
    from loopscope_dashboards.queries import run as run_questions
    from loopscope_dashboards.queries import runs as list_questions
    from loopscope_dashboards.queries import turn as turn_questions

    def raw(function: Any) -> Any:
        return function.__wrapped__

    day = list_questions.RunFilter(now - 86_400 * SECOND, now + 3_600 * SECOND)
    found: Figures = {
        "list: newest 50 runs": median_ms(lambda: raw(list_questions.list_runs)(day), rounds),
        "list: key figures": median_ms(lambda: raw(list_questions.totals)(day), rounds),
        "list: chart": median_ms(lambda: raw(list_questions.over_time)(day, 1_800), rounds),
    }
    for name, run_id in (("run of 200 spans", middle), ("run of 3,000 spans", large)):
        run = raw(run_questions.get_run)(run_id)
        spans = raw(run_questions.settled_spans)(run)
        calls = [span for span in spans if span.kind == "llm"][-2:]
        tools = [span for span in spans if span.kind == "tool"][-1:]

        def where(chosen: list[Any]) -> Any:
            hour = 3_600 * SECOND
            return turn_questions.Where(
                tuple(span.span_id for span in chosen),
                tuple({span.trace_id for span in chosen}),
                min(span.started_ns for span in chosen) - hour,
                max(span.started_ns for span in chosen) + hour,
            )

        last = raw(turn_questions.calls_of)(where(calls))[-1]
        hashes = (*last.input_hashes[-4:], *last.output_hashes)
        parts = {
            "run": median_ms(lambda run_id=run_id: raw(run_questions.get_run)(run_id), rounds),
            "spans": median_ms(lambda run=run: raw(run_questions.settled_spans)(run), rounds),
            "calls": median_ms(lambda calls=calls: raw(turn_questions.calls_of)(where(calls)), rounds),
            "texts": median_ms(
                lambda last=last, hashes=hashes: raw(turn_questions.texts_of)(last.trace_id, hashes), rounds
            ),
            "tools": median_ms(lambda tools=tools: raw(turn_questions.tools_of)(where(tools)), rounds),
        }
        found |= {f"{name}: {part}": value for part, value in parts.items()}
        found[f"{name}: all queries"] = sum(parts.values())
    return found


@contextmanager
def empty_streamlit() -> Generator[str]:
    """An application of one line, as the measure of Streamlit itself."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "empty.py"
        script.write_text('import streamlit as st\n\nst.text("empty page")\n', encoding="utf-8")
        port = free_port()
        process = subprocess.Popen(
            [
                sys.executable, "-m", "streamlit", "run", str(script),
                f"--server.port={port}", "--server.headless=true",
                "--server.address=127.0.0.1", "--browser.gatherUsageStats=false", "--server.fileWatcherType=none",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def time_pages(url: str, middle: str, rounds: int) -> Figures:
    """From a click, or an address, until drawn; seconds."""
    from playwright.sync_api import sync_playwright

    found: Figures = {}
    with sync_playwright() as playwright, empty_streamlit() as empty:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)

        def typed(address: str, drawn: str) -> float:
            times: list[float] = []
            for _ in range(rounds + 1):
                page.goto("about:blank")
                begin = time.perf_counter()
                page.goto(address)
                page.wait_for_selector(drawn)
                times.append(time.perf_counter() - begin)
            return statistics.median(times[1:])

        found["empty Streamlit page, address typed"] = typed(empty, "text=empty page")
        found["list, address typed"] = typed(url, "table.runs tbody tr")
        found["run, address typed"] = typed(f"{url}/?run={middle}&turn=50", "text=What it answered")
        to_run: list[float] = []
        to_turn: list[float] = []
        to_list: list[float] = []
        page.goto(url)
        for _ in range(rounds):
            page.wait_for_selector("table.runs tbody tr")
            begin = time.perf_counter()
            page.locator("table.runs tbody tr").first.click()
            page.wait_for_selector("text=What it answered")
            to_run.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            page.get_by_text("Next \u2192").click()
            page.wait_for_selector("text=/Turn 2 of/")
            to_turn.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            page.get_by_text("\u2190 Runs").click()
            page.wait_for_selector("table.runs tbody tr")
            to_list.append(time.perf_counter() - begin)
        found["click on a run"] = statistics.median(to_run)
        found["click on the next turn"] = statistics.median(to_turn)
        found["click back to the list"] = statistics.median(to_list)
        browser.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    now = time.time_ns()
    with tempfile.TemporaryDirectory() as folder, engine_in(Path(folder) / secrets.token_hex(4)) as engine:
        client = connect(engine.write_dsn)
        migrate(client)
        middle, large = fill(client, options.runs, now)
        os.environ["LOOPSCOPE_DSN"] = read_dsn(engine)
        queries = time_queries(middle, large, now, options.rounds)
        dashboards = Dashboards(read_dsn(engine))
        try:
            pages = time_pages(dashboards.wait().url, middle, options.rounds)
        finally:
            dashboards.stop()
    if options.json:
        print(json.dumps({"runs": options.runs, "queries_ms": queries, "pages_s": pages}, indent=2))
        return
    print(f"dashboards over {options.runs:,} runs, p50 of {options.rounds}")
    for name, value in queries.items():
        print(f"  {name:<40} {value:8.1f} ms")
    for name, value in pages.items():
        print(f"  {name:<40} {value:8.2f} s")
    above = pages["run, address typed"] - pages["empty Streamlit page, address typed"]
    for name, value, budget, unit in (
        ("run page, all queries", queries["run of 200 spans: all queries"], BUDGET_RUN_QUERIES_MS, "ms"),
        ("list query", queries["list: newest 50 runs"], BUDGET_LIST_QUERY_MS, "ms"),
        ("click until drawn", pages["click on a run"], BUDGET_CLICK_S, "s"),
        ("address typed, above an empty page", above, BUDGET_TYPED_ABOVE_EMPTY_S, "s"),
    ):
        print(f"  {name:<40} {value:8.2f} {unit}, budget {budget:g}: {'met' if value <= budget else 'missed'}")


if __name__ == "__main__":
    main()
