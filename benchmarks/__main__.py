"""`make bench`: every benchmark after the other, each in a process of its own, so that none inherits another's memory.

    python -m benchmarks [--quick | --full]

`--full` compares the SDK with its peers in every cell: an hour by itself, where it is else ten minutes.
`--quick` takes smaller sizes: a few minutes in all, to see that everything runs. Sizes are printed with the figures.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
USUAL: Final = {
    "ingest.py": ["--megabytes", "400"],
    "sdk_caller.py": [],
    "sdk_overhead.py": [],
    "search.py": ["--messages", "200000"],
    "dashboard_pages.py": [],
    "engine_isolation.py": [],
}
QUICK: Final = {
    "ingest.py": ["--megabytes", "60"],
    "sdk_caller.py": ["--calls", "30"],
    "sdk_overhead.py": ["--quick", "--calls", "4"],
    "search.py": ["--messages", "50000"],
    "dashboard_pages.py": ["--runs", "2000", "--rounds", "5"],
    "engine_isolation.py": [],
}


def main() -> int:
    """Run all; the exit code is 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="smaller sizes")
    extent.add_argument("--full", action="store_true", help="the SDK's comparison in every cell")
    options = parser.parse_args()
    chosen = QUICK if options.quick else USUAL
    if options.full:
        chosen = {**USUAL, "sdk_overhead.py": ["--full"]}
    failed: list[str] = []
    for name, arguments in chosen.items():
        print(f"\n--- {name} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, str(FOLDER / name), *arguments], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
