"""What recording costs the agent: added time on the caller's thread and added CPU of all threads, for each LLM call.

Real anthropic calls over real HTTP to a server in a process of its own, which thinks for 30 ms before it answers (a
model takes longer). Each size is measured in pairs: a block of calls without instrumentation, the same block with it,
again and again in turn, so that a busy machine weighs on both alike; the figure is the median of the differences. A
call's history grows by one message from call to call, as an agent's does. "CPU" of the caller's thread is what remains
of the added time when other programs share the cores.

    python benchmarks/sdk_overhead.py [--pairs 12] [--calls 10] [--json]
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from loopscope_schemas.wire import PRODUCT, WIRE_VERSION

SIZES_KB = (4, 100, 600)
BUDGET_US = {4: 120.0, 100: 300.0, 600: 1000.0}
BUDGET_CPU_MS = 3.0
THINK_SECONDS = 0.03
BUDGET_IMPORT_MS = 150.0
WORDS = "the customer asked whether the refund of order 4711 was already on its way, and the tool says it is not; "

ANSWER = json.dumps(
    {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "All right. " * 40}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 80},
    }
).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        # Who is asked: Loopscope's collector, so that what is measured is what it gets.
        body = json.dumps({"product": PRODUCT, "version": "0", "wire": WIRE_VERSION}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        if self.path.startswith("/v1/messages"):
            body = ANSWER
            time.sleep(THINK_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        pass


def serve(port: Connection) -> None:
    """The Messages API and the collector, in a process of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    port.send(server.server_port)
    server.serve_forever()


def history(kilobytes: int) -> list[dict[str, str]]:
    """Messages of about this many KB of JSON in all, 2 KB each."""
    text = (WORDS * 20)[:2000]
    count = max(round(kilobytes * 1000 / 2050), 1)
    return [
        {"role": "user" if index % 2 == 0 else "assistant", "content": f"{index}: {text}"} for index in range(count)
    ]


def block(client: Any, messages: list[dict[str, str]], calls: int, run: Any) -> tuple[float, float, float]:
    """(wall seconds in the calls, this thread's CPU seconds in them, the process' CPU clock when the block began)."""
    gc.collect()
    cpu = time.process_time()
    wall = own = 0.0
    with run:
        turn = list(messages)
        for number in range(calls):
            begun, own_begun = time.perf_counter(), time.thread_time()
            client.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=turn)
            wall += time.perf_counter() - begun
            own += time.thread_time() - own_begun
            turn.append({"role": "user", "content": f"and then? {number}"})
    return wall, own, cpu


def measure(kilobytes: int, url: str, pairs: int, calls: int) -> dict[str, Any]:
    import anthropic

    import loopscope

    messages = history(kilobytes)
    walls: list[float] = []
    owns: list[float] = []
    cpus: list[float] = []
    plain: list[float] = []
    with (
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
        tempfile.TemporaryDirectory() as spool,
    ):
        loopscope.configure(agent="bench", endpoint=url, spool_dir=spool)
        instrumentation = loopscope.instrument_anthropic()
        block(client, messages, calls, loopscope.run("warm up"))
        loopscope.flush(60)
        for _ in range(pairs):
            instrumentation.undo()
            bare_wall, bare_own, begun = block(client, messages, calls, _Nothing())
            bare_cpu = time.process_time() - begun
            instrumentation = loopscope.instrument_anthropic()
            wall, own, begun = block(client, messages, calls, loopscope.run("bench"))
            if not loopscope.flush(60):
                raise SystemExit(f"not delivered: {loopscope.stats()}")
            cpu = time.process_time() - begun
            walls.append((wall - bare_wall) / calls)
            owns.append((own - bare_own) / calls)
            cpus.append((cpu - bare_cpu) / calls)
            plain.append(bare_wall / calls)
        instrumentation.undo()
        loopscope.shutdown(5)
    return {
        "history_kb": len(json.dumps(messages)) / 1000,
        "call_us": statistics.median(plain) * 1e6,
        "added_us": statistics.median(walls) * 1e6,
        "added_us_quartiles": [q * 1e6 for q in statistics.quantiles(walls, n=4)],
        "added_caller_cpu_us": statistics.median(owns) * 1e6,
        "added_cpu_ms": statistics.median(cpus) * 1e3,
        "budget_us": BUDGET_US[kilobytes],
    }


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def import_milliseconds(repeats: int = 5) -> dict[str, float]:
    """`import loopscope; loopscope.configure()` beyond opentelemetry-sdk, in fresh interpreters; the median."""
    code = (
        "import time, tempfile; d = tempfile.mkdtemp(); import opentelemetry.sdk.trace; a = time.perf_counter();"
        "import loopscope; b = time.perf_counter();"
        "loopscope.configure(endpoint='http://127.0.0.1:1', spool_dir=d, exit_flush_seconds=0);"
        "print((b - a) * 1e3, (time.perf_counter() - b) * 1e3)"
    )
    runs: list[tuple[float, ...]] = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append(tuple(map(float, done.stdout.split())))
    imported, configured = (statistics.median(column) for column in zip(*runs, strict=True))
    return {"import_ms": imported, "configure_ms": configured, "budget_ms": BUDGET_IMPORT_MS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--calls", type=int, default=10, help="calls of a block")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        sizes = [measure(size, url, options.pairs, options.calls) for size in SIZES_KB]
    finally:
        server.terminate()
        server.join()
    result: dict[str, Any] = {"calls": sizes, "budget_cpu_ms_600": BUDGET_CPU_MS, "start": import_milliseconds()}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{'history':>10} {'bare':>12} {'added, caller':>14} {'its CPU':>9} {'budget':>10} {'CPU, all threads':>18}")
    for row in sizes:
        print(
            f"{row['history_kb']:>7.0f} KB {row['call_us']:>9.0f} us {row['added_us']:>11.0f} us "
            f"{row['added_caller_cpu_us']:>6.0f} us {row['budget_us']:>7.0f} us {row['added_cpu_ms']:>15.2f} ms"
        )
    start = result["start"]
    print(f"budget of CPU at 600 KB: {BUDGET_CPU_MS} ms")
    print(
        f"import {start['import_ms']:.0f} ms + configure {start['configure_ms']:.0f} ms beyond opentelemetry-sdk "
        f"(budget {start['budget_ms']:.0f} ms)"
    )


if __name__ == "__main__":
    main()
