"""What recording costs the agent, Loopscope's and its peers' in one run, each paired with the uninstrumented SDK.

Real anthropic calls over real HTTP to a server in a process of its own, which thinks for 30 ms before it answers. Each
recorder has a worker process in an environment of its own (`scripts/bench-peers` makes those of the peers; one that is
not there is listed with the reason). A worker does a block of calls without recording and the same block with it; the
blocks of all recorders take turns, in an order that changes from round to round, so that a busy machine weighs on all
alike. A figure is the median of the differences of pairs. A call's history grows by one message from call to call.

  wall      added time of a call on the caller's thread
  caller    added CPU of that thread
  all       added CPU of all threads of the process, until everything is sent
  lag       how late the host's event loop comes back while calls of 600 KB go on, beyond the same without recording

    python benchmarks/sdk_overhead.py [--quick | --full] [--rounds 4] [--calls 8] [--only loopscope,manual] [--json F]

By default: sync and async calls of every size, streams of 100 KB, every recorder that is installed, 4 rounds: below ten
minutes. `--full` takes streams of every size, Loopscope's other settings, and 8 rounds; `--quick` 2 rounds, no streams.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from sdk_recorders import ENVIRONMENTS, RECORDERS  # noqa: E402 - workers, in other environments, import it alike
from sdk_server import serving  # noqa: E402

SIZES_KB: Final = (4, 100, 600)
STREAMED_KB: Final = (100,)
"""Of streams, unless all is asked for."""
VARIANTS: Final = ("loopscope-metadata", "loopscope-rules")
"""Loopscope with other settings: where all is asked for, or they are named."""
BUDGET_US: Final = {4: 120, 100: 300, 600: 1000}
BUDGET_CPU_MS: Final = 3.0
BUDGET_IMPORT_MS: Final = 150.0
FIGURES: Final = ("wall_us", "own_us", "cpu_us", "lag_p50_us", "lag_p99_us", "lag_max_us")


class Kind(NamedTuple):
    """One way of calling."""

    is_async: bool
    stream: bool
    kilobytes: int
    ticks: bool = False

    @property
    def title(self) -> str:
        return f"{'async' if self.is_async else 'sync'}{', streamed' if self.stream else ''}"


class Worker:
    """A recorder's process."""

    def __init__(self, name: str, url: str, python: Path) -> None:
        self.name = name
        self._url = url
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "stderr")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, FOLDER / "sdk_worker.py", name, url, self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.versions: dict[str, str] = self._answer()["versions"]

    def block(self, kind: Kind, calls: int, *, on: bool) -> dict[str, float]:
        assert self._process.stdin is not None
        command = {**kind._asdict(), "calls": calls, "on": on}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):  # anything else is a greeting of some library
                return json.loads(line)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        raise WorkerError(lines[-1] if lines else f"exit code {self._process.wait()}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


class WorkerError(Exception):
    """A recorder's process ended; the message is the last line that it wrote."""


def python_of(name: str) -> Path | None:
    """The interpreter that a recorder runs in; None when its environment was not made."""
    if name.startswith("loopscope"):
        return Path(sys.executable)
    folder = FOLDER.parent / ".venv-bench" / ENVIRONMENTS.get(name, name)
    return folder / "bin" / "python" if (folder / ".installed").is_file() else None


def start_workers(names: list[str], url: str) -> tuple[list[Worker], dict[str, str]]:
    """(those that run, why the others do not)."""
    workers: list[Worker] = []
    absent: dict[str, str] = {}
    for name in names:
        python = python_of(name)
        if python is None:
            log = FOLDER.parent / ".venv-bench" / ENVIRONMENTS.get(name, name) / "install.log"
            lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
            absent[name] = f"not installed: {lines[-1] if lines else 'run scripts/bench-peers'}"
            continue
        try:
            workers.append(Worker(name, url, python))
        except WorkerError as error:
            absent[name] = f"does not start: {error}"
    return workers, absent


def measure(
    workers: list[Worker], kinds: list[Kind], rounds: int, calls: int, url: str, absent: dict[str, str]
) -> list[dict[str, Any]]:
    """One row for each recorder and kind of call. A recorder that fails is taken out and named in `absent`."""
    pairs: dict[tuple[str, Kind], list[tuple[dict[str, float], dict[str, float]]]] = {}
    sent: dict[tuple[str, Kind], float] = {}
    order = random.Random(7)
    running = {worker.name: worker for worker in workers}
    for number in range(-1, rounds):  # the first warms up, and shows how much is sent
        for kind in kinds:
            for worker in order.sample(list(running.values()), len(running)):
                some = max(calls, 20) if kind.ticks else calls
                try:
                    if number < 0:
                        received(url)
                        worker.block(kind, 2, on=True)
                        sent[worker.name, kind] = received(url) / 2
                        continue
                    blocks = {on: worker.block(kind, some, on=on) for on in order.sample([False, True], 2)}
                except WorkerError as error:
                    absent[worker.name] = f"failed: {error}"
                    del running[worker.name]
                    continue
                pairs.setdefault((worker.name, kind), []).append((blocks[False], blocks[True]))
        if number >= 0:
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for (name, kind), done in pairs.items():
        row: dict[str, Any] = {"recorder": name, **kind._asdict(), "sent_bytes": sent[name, kind]}
        for figure in FIGURES:
            added = [on[figure] - off[figure] for off, on in done]
            row[figure] = statistics.median(added)
            row[f"{figure}_quartiles"] = statistics.quantiles(added, n=4) if len(added) > 1 else [added[0]] * 3
            row[f"bare_{figure}"] = statistics.median([off[figure] for off, _ in done])
        rows.append(row)
    return rows


def received(url: str) -> int:
    """Bytes that recorders sent since the last time."""
    with urllib.request.urlopen(f"{url}/received") as answer:
        return int(answer.read())


def start_milliseconds(names: list[str], url: str, repeats: int) -> dict[str, float]:
    """Import and configuration beyond `import anthropic`, in fresh interpreters; the median."""
    result: dict[str, float] = {}
    for name in names:
        times: list[float] = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(
                    [python_of(name) or sys.executable, FOLDER / "sdk_worker.py", name, url, folder, "--start"],
                    capture_output=True,
                    check=True,
                )
            times += [json.loads(line)["start_ms"] for line in done.stdout.splitlines() if line.startswith(b'{"start')]
        result[name] = statistics.median(times)
    return result


def print_tables(result: dict[str, Any]) -> None:
    rows = result["calls"]
    for title in dict.fromkeys(Kind(r["is_async"], r["stream"], 0).title for r in rows if not r["ticks"]):
        those = [r for r in rows if Kind(r["is_async"], r["stream"], 0).title == title and not r["ticks"]]
        sizes = sorted({r["kilobytes"] for r in those})
        print(f"\n{title}: added wall / CPU of the caller / CPU of all threads, us a call; KB sent a call")
        bare = [f"{next(r['bare_wall_us'] for r in those if r['kilobytes'] == size):.0f}" for size in sizes]
        print(f"{'':<20}" + "".join(f"{f'{size} KB (bare {b})':>34}" for size, b in zip(sizes, bare, strict=True)))
        for name in dict.fromkeys(r["recorder"] for r in those):
            cells = [r for size in sizes for r in those if r["recorder"] == name and r["kilobytes"] == size]
            print(
                f"{name:<20}"
                + "".join(
                    f"{c['wall_us']:>9.0f} /{c['own_us']:>6.0f} /{c['cpu_us']:>6.0f}; {c['sent_bytes'] / 1000:>5.0f}"
                    for c in cells
                )
            )
    lags = [r for r in rows if r["ticks"]]
    if lags:
        print("\nlag of the event loop while calls of 600 KB go on, us: bare p50 / p99, recording p50 / p99 / longest")
    for r in lags:
        with_it = [r[f"bare_{figure}"] + r[figure] for figure in ("lag_p50_us", "lag_p99_us", "lag_max_us")]
        print(
            f"{r['recorder']:<20}{r['bare_lag_p50_us']:>7.0f} /{r['bare_lag_p99_us']:>6.0f}   "
            + " /".join(f"{value:>7.0f}" for value in with_it)
        )
    print("\nimport and configuration beyond `import anthropic`, ms:")
    for name, value in result["start_ms"].items():
        print(f"{name:<20}{value:>7.0f}")
    budget = ", ".join(f"{size} KB {value} us" for size, value in BUDGET_US.items())
    print(f"\nbudgets: caller {budget}; all threads at 600 KB {BUDGET_CPU_MS} ms; import {BUDGET_IMPORT_MS:.0f} ms")
    for name, versions in result["versions"].items():
        print(f"{name:<20}" + ", ".join(f"{package} {version}" for package, version in versions.items()))
    for name, reason in result["absent"].items():
        print(f"{name:<20}{reason}")


def kinds_of(*, quick: bool, full: bool) -> list[Kind]:
    kinds = [Kind(is_async, stream=False, kilobytes=size) for is_async in (False, True) for size in SIZES_KB]
    if not quick:
        sizes = SIZES_KB if full else STREAMED_KB
        kinds += [Kind(is_async, stream=True, kilobytes=size) for is_async in (False, True) for size in sizes]
    return [*kinds, Kind(is_async=True, stream=False, kilobytes=600, ticks=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, help="pairs of blocks for each recorder and kind of call; default 4, 2, 8"
    )
    parser.add_argument("--calls", type=int, default=8, help="calls of a block")
    parser.add_argument("--only", default="", help="recorders, separated by commas; default: all that are installed")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="2 rounds, without streams")
    extent.add_argument(
        "--full", action="store_true", help="8 rounds, streams of all sizes, Loopscope's other settings"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there, with quartiles")
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(",") if name.strip()]
    names = names or [name for name in RECORDERS if options.full or name not in VARIANTS]
    if unknown := set(names) - set(RECORDERS):
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(RECORDERS)}")
    with serving() as url:
        workers, absent = start_workers(names, url)
        try:
            rounds = options.rounds or (2 if options.quick else 8 if options.full else 4)
            rows = measure(
                workers, kinds_of(quick=options.quick, full=options.full), rounds, options.calls, url, absent
            )
        finally:
            for worker in workers:
                worker.close()
        running = [worker.name for worker in workers if worker.name not in absent]
        starts = start_milliseconds(running, url, 2 if options.quick else 5)
    rows.sort(key=lambda row: names.index(row["recorder"]))
    result: dict[str, Any] = {
        "calls": rows,
        "start_ms": starts,
        "versions": {worker.name: worker.versions for worker in workers},
        "absent": absent,
    }
    print_tables(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
