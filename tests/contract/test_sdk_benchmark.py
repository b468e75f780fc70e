"""The benchmark of the SDK: its recorders can be had, and a block of calls is recorded and sent when it says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from sdk_overhead import Kind, Worker, python_of, received  # noqa: E402
from sdk_recorders import ENVIRONMENTS, RECORDERS  # noqa: E402
from sdk_server import serving  # noqa: E402


def test_every_peer_can_be_installed() -> None:
    script = (ROOT / "scripts" / "bench-peers").read_text()
    for name in RECORDERS:
        if not name.startswith("loopscope"):
            assert f"    {ENVIRONMENTS.get(name, name)}) echo " in script, f"scripts/bench-peers does not know {name}"
    done = subprocess.run([ROOT / "scripts" / "bench-peers", "nobody"], capture_output=True, text=True)
    assert (done.returncode, "no such peer" in done.stderr) == (2, True)


@pytest.mark.parametrize("kind", [Kind(False, False, 4), Kind(False, True, 100), Kind(True, True, 4, ticks=True)])
def test_a_block_is_recorded_when_it_is_on(kind: Kind) -> None:
    with serving() as url:
        python = python_of("loopscope")
        assert python is not None
        worker = Worker("loopscope", url, python)
        try:
            off = worker.block(kind, 2, on=False)
            assert received(url) == 0
            on = worker.block(kind, 2, on=True)
            assert received(url) > 2 * kind.kilobytes * 900
        finally:
            worker.close()
    assert off["wall_us"] > 0
    assert on["cpu_us"] > 0
    assert (on["lag_p99_us"] > 0) == kind.ticks
    json.dumps(on)
