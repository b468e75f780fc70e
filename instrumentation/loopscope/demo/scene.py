"""The process of one scene: `python -m loopscope.demo.scene NAME`. Exits 1 when not everything could be delivered."""

import sys
from pathlib import Path
from typing import Final

import loopscope
from loopscope.demo.catalog import SCENES, airline_scene

FLUSH_SECONDS: Final = 20.0
"""A collector that has not taken a scene's spans by then is not keeping up."""


def main(argv: list[str]) -> int:
    """Run the scene named in `argv`. Returns the exit code: 0, or 1 with a line on stderr."""
    known = {one.name: one for one in (*SCENES, airline_scene(Path()))}
    if len(argv) != 1 or argv[0] not in known:
        print(f"usage: python -m loopscope.demo.scene NAME; NAME is one of {', '.join(known)}", file=sys.stderr)
        return 2
    known[argv[0]].main()
    if not loopscope.flush(FLUSH_SECONDS):
        print(f"not everything was delivered within {FLUSH_SECONDS:g} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
