"""How fast what agents send can be queried, how small it is stored, and how much memory that takes.

Starts a collector with the embedded engine on a fresh directory; a process of its own sends pre-encoded OTLP bytes over
HTTP on the same cores. The clock runs from the first byte sent until count() in the store has every span. Stored bytes
are those of the active parts after merging.

    python benchmarks/ingest.py [--mode genai loopscope narrow] [--megabytes 400] [--json]
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import psutil
from otlp_load import send_all

from loopscope_collector.engine import WRITER_USER, EngineProcess

BUDGET_MB_S = 150.0
BUDGET_NARROW_SPANS_S = 20_000.0
BUDGET_RATIO = 12.0
BUDGET_MEMORY_GIB = 1.5
LIMIT_SECONDS = 300.0
SAMPLE_SECONDS = 0.2
MODES = ("genai", "loopscope", "narrow")

COLLECTOR = """
import sys
from loopscope_collector.process import run_collector
from loopscope_collector.settings import CollectorSettings
sys.exit(run_collector(CollectorSettings(dashboard=False, otlp_http_port=0, clickhouse_port=0)))
"""


def measure(mode: str, megabytes: int) -> dict[str, Any]:
    """Run one mode; the figures."""
    with tempfile.TemporaryDirectory(prefix="loopscope-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOPSCOPE_")}
        collector = subprocess.Popen(
            [sys.executable, "-c", COLLECTOR],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"LOOPSCOPE_DATA_DIR": folder},
        )
        try:
            figures = _load(collector, mode, megabytes)
            collector.send_signal(signal.SIGTERM)
            collector.wait(60)
        finally:
            collector.kill()
            collector.wait()
        figures |= _stored(Path(folder) / "store", figures["payload_bytes"])
    return figures


def _load(collector: "subprocess.Popen[str]", mode: str, megabytes: int) -> dict[str, Any]:
    addresses: dict[str, str] = {}
    assert collector.stdout is not None
    while len(addresses) < 2:
        line = collector.stdout.readline()
        if not line:
            sys.exit("the collector did not start")
        name, _, url = line.strip().partition(" ")
        addresses[name] = url
    otlp, store = urlsplit(addresses["otlp-http"]), urlsplit(addresses["clickhouse"])
    reader = clickhouse_connect.get_client(host=store.hostname, port=store.port or 0, database="loopscope")
    while reader.command("EXISTS TABLE loopscope.estimates") != 1:  # the last view: the schema is there
        time.sleep(0.05)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    address = (otlp.hostname, otlp.port)
    sender = context.Process(target=send_all, args=(address, mode, megabytes * 1_000_000, theirs), daemon=True)
    sender.start()
    load = ours.recv()
    family = [psutil.Process(collector.pid), *psutil.Process(collector.pid).children(recursive=True)]
    cpu_before = _cpu_seconds(family)
    ours.send("go")
    began = time.monotonic()
    acknowledged = 0.0
    memory: list[int] = []
    refused = 0
    while True:
        memory.append(sum(process.memory_info().rss for process in family))
        if not acknowledged and ours.poll():
            refused = ours.recv()["refused"]
            acknowledged = time.monotonic() - began
        stored = int(str(reader.command("SELECT count() FROM loopscope.spans_data")))
        elapsed = time.monotonic() - began
        if stored >= load["spans"]:
            break
        if elapsed > LIMIT_SECONDS:
            sys.exit(f"{stored} of {load['spans']} spans after {elapsed:.0f} s")
        time.sleep(SAMPLE_SECONDS)
    if not acknowledged:
        refused = ours.recv()["refused"]
        acknowledged = elapsed
    sender.join(10)
    cpu = [after - before for before, after in zip(cpu_before, _cpu_seconds(family), strict=True)]
    return {
        "mode": mode,
        "spans": load["spans"],
        "payload_bytes": load["bytes"],
        "bytes_a_span": round(load["bytes"] / load["spans"]),
        "seconds_until_acknowledged": round(acknowledged, 2),
        "seconds_until_queryable": round(elapsed, 2),
        "mb_per_second": round(load["bytes"] / 1e6 / elapsed, 1),
        "spans_per_second": round(load["spans"] / elapsed),
        "acknowledged_mb_per_second": round(load["bytes"] / 1e6 / acknowledged, 1),
        "requests_sent_away": refused,
        "memory_gib_steady": round(statistics.median(memory[len(memory) // 2 :]) / 2**30, 2),
        "memory_gib_most": round(max(memory) / 2**30, 2),
        "cpu_seconds_collector": round(cpu[0], 1),
        "cpu_seconds_engine": round(sum(cpu[1:]), 1),
    }


def _cpu_seconds(processes: list[psutil.Process]) -> list[float]:
    found: list[float] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found.append(times.user + times.system)
    return found


def _stored(store: Path, payload_bytes: int) -> dict[str, Any]:
    """Bytes of the active parts after every table was merged."""
    secret = secrets.token_urlsafe(16)
    with EngineProcess(store, port=0, write_secret=secret) as engine:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=engine.port, username=WRITER_USER, password=secret, send_receive_timeout=600
        )
        tables = client.query(
            "SELECT name FROM system.tables WHERE database = 'loopscope' AND engine LIKE '%MergeTree'"
        )
        for (name,) in tables.result_rows:
            client.command(f"OPTIMIZE TABLE loopscope.{name} FINAL")
        rows = client.query(
            "SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts WHERE database = 'loopscope' AND active "
            "GROUP BY table ORDER BY bytes DESC"
        ).result_rows
        client.close()
    total = sum(int(size) for _, size in rows)
    return {
        "stored_bytes": total,
        "payload_to_stored": round(payload_bytes / total, 1),
        "stored_bytes_by_table": {name: int(size) for name, size in rows if size},
    }


def report(figures: dict[str, Any]) -> str:
    """One paragraph for people, with the budgets."""
    if figures["mode"] == "narrow":
        speed = f"{figures['spans_per_second']} spans/s (budget {BUDGET_NARROW_SPANS_S:.0f})"
    else:
        speed = f"{figures['mb_per_second']} MB/s (budget {BUDGET_MB_S:.0f}), {figures['spans_per_second']} spans/s"
    return (
        f"ingest {figures['mode']}: {figures['spans']} spans of {figures['bytes_a_span']} bytes, "
        f"{figures['payload_bytes'] / 1e6:.0f} MB\n"
        f"  until queryable   {figures['seconds_until_queryable']} s: {speed}\n"
        f"  until kept        {figures['seconds_until_acknowledged']} s: {figures['acknowledged_mb_per_second']} MB/s\n"
        f"  stored / payload  1/{figures['payload_to_stored']}"
        + (f" (budget 1/{BUDGET_RATIO:.0f})\n" if figures["mode"] != "narrow" else "\n")
        + f"  memory            {figures['memory_gib_steady']} GiB steady, {figures['memory_gib_most']} most "
        f"(budget {BUDGET_MEMORY_GIB}); CPU {figures['cpu_seconds_collector']} s collector, "
        f"{figures['cpu_seconds_engine']} s engine\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--megabytes", type=int, default=400, help="payload of each mode")
    parser.add_argument("--json", action="store_true", help="figures as JSON, one object a mode")
    arguments = parser.parse_args()
    for mode in arguments.mode:
        figures = measure(mode, arguments.megabytes)
        print(json.dumps(figures) if arguments.json else report(figures), flush=True)


if __name__ == "__main__":
    main()
