"""Runs the demo: a Messages API stand-in, every scene in a process of its own, one line for each.

Called by `loopscope demo` and `make demo`, once a collector is up; `main(argv)` is the door, `run_demo` for callers
that hold a stand-in already (tests).
"""

import argparse
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loopscope.demo import airline
from loopscope.demo.catalog import SCENES, Scene, airline_scene
from loopscope.demo.scene import play, processes
from loopscope.stub import StubServer

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4318"
DEFAULT_DATA: Final = Path("../shared/data/airline_trajectories.jsonl.gz")
LATENCY_SECONDS: Final = 0.03
"""Mean answer time of the demo's model: long enough to see a duration, short enough for 1,600 calls."""
SCENE_SECONDS: Final = 120.0
"""A scene that takes longer is ended and counts as failed."""
MAX_OUTPUT_CHARS: Final = 4_000
"""How much is shown of what a failed scene printed; the end of it."""
WAIT_SECONDS: Final = 60.0
"""How long the runner waits for the collector to answer."""


@dataclass(frozen=True)
class Played:
    """How one scene went: seconds, and the error when it failed."""

    scene: str
    seconds: float
    error: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0; 1 when a scene failed or the collector does not answer; 2 for usage."""
    options = _arguments(argv)
    scenes = choose(options.only, options.data)
    if isinstance(scenes, str):
        print(scenes, file=sys.stderr)
        return 2
    if not wait_for(options.endpoint, options.wait):
        print(f"no collector answers at {options.endpoint}/healthz; start one with: loopscope up", file=sys.stderr)
        return 1
    started = time.monotonic()
    with StubServer(latency_seconds=options.latency, log_file=options.log_file) as stub:
        played = run_demo(scenes, stub, options.endpoint, data=options.data, jobs=options.jobs, say=print)
        calls = len(stub.log.entries())
    failed = [one for one in played if one.error]
    print(
        f"{len(played) - len(failed)} of {len(played)} scenes played, {calls} requests to the model, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


def choose(only: Sequence[str], data: Path) -> list[Scene] | str:
    """The scenes to play; a text that says what is wrong when a name is unknown or its recordings are missing."""
    scenes = list(SCENES)
    if data.is_file():
        scenes.insert(0, airline_scene(data))
    elif not only:
        print(f"airline: skipped, there are no recorded conversations at {data}")
    elif "airline" in only:
        return f"the scene airline needs recorded conversations; there are none at {data} (choose with --data)"
    unknown = set(only) - {one.name for one in scenes}
    if unknown:
        return f"there is no scene {min(unknown)!r}; known: {', '.join(one.name for one in scenes)}"
    return [one for one in scenes if not only or one.name in only]


def run_demo(
    scenes: Sequence[Scene],
    stub: StubServer,
    endpoint: str,
    *,
    data: Path = DEFAULT_DATA,
    jobs: int = 3,
    say: Callable[[str], object] = print,
    environment: Mapping[str, str] | None = None,
) -> list[Played]:
    """Play scenes against a running stand-in, `jobs` at a time; `say` gets a line when each has ended.

    `endpoint` is the collector's, `environment` is added to that of the scenes' processes.
    """
    for scene in scenes:
        for name, script in scene.scripts().items():
            stub.add_script(name, script)
    variables = {
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "sk-demo",
        "LOOPSCOPE_ENDPOINT": endpoint,
        airline.DATA_VARIABLE: str(data.absolute()),
        **(environment or {}),
    }

    def one(scene: Scene) -> Played:
        played = _play(scene, variables)
        say(f"{played.scene:<12} {played.error or 'ok'} ({played.seconds:.1f} s)")
        return played

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, scenes))


def wait_for(endpoint: str, seconds: float) -> bool:
    """Whether the collector answers its health check within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=2):  # noqa: S310 - the user's own address
                return True
        except (urllib.error.URLError, OSError):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)


def _play(scene: Scene, variables: Mapping[str, str]) -> Played:
    started = time.monotonic()
    error = None
    with tempfile.TemporaryDirectory(prefix="loopscope-demo-") as folder:
        output = Path(folder, "output")
        process = processes().Process(target=play, args=(scene.name, variables, str(output)), name=scene.name)
        process.start()
        process.join(SCENE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            error = f"not finished after {SCENE_SECONDS:g} s"
        elif process.exitcode:
            said = output.read_text(errors="replace").strip() if output.exists() else ""
            error = f"failed with exit code {process.exitcode}:\n{said[-MAX_OUTPUT_CHARS:]}"
        process.close()
    return Played(scene.name, time.monotonic() - started, error)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loopscope demo", description=__doc__)
    endpoint = os.environ.get("LOOPSCOPE_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")
    parser.add_argument("--endpoint", default=endpoint, help="the collector's address (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="SCENE", help="play only these scenes")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="recorded airline conversations")
    parser.add_argument("--jobs", type=int, default=3, help="scenes at a time (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=LATENCY_SECONDS, help="mean seconds before an answer")
    parser.add_argument("--log-file", type=Path, default=None, help="the stand-in's log, a JSON line for each request")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for the collector")
    return parser.parse_args(argv)
