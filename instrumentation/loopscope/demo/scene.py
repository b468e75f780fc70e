"""The process of one scene: started by the runner, or by hand with `python -m loopscope.demo.scene NAME`.

The runner forks it from a server process that has imported everything once: the SDK alone takes seconds to import.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
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
    loopscope.shutdown()
    return 0


def processes() -> ForkServerContext:
    """Makes processes that have this module, and with it all scenes and the SDK, imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loopscope.demo.warm"])
    return context


def play(name: str, variables: Mapping[str, str], output: str) -> None:
    """In a process of its own: run a scene with these environment variables; what it prints goes to a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(variables)
    sys.exit(main([name]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
