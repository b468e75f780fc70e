"""`loopscope run`: somebody's agent, recorded, without a line of it changed."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import loopscope
from loopscope.cli._program import Program
from loopscope.cli._rooms import fail

_VARIABLES = {
    "agent": "LOOPSCOPE_AGENT",
    "agent_version": "LOOPSCOPE_AGENT_VERSION",
    "endpoint": "LOOPSCOPE_ENDPOINT",
    "environment": "LOOPSCOPE_ENVIRONMENT",
    "user_id": "LOOPSCOPE_USER_ID",
    "conversation_id": "LOOPSCOPE_CONVERSATION_ID",
}
"""Set as well, so that a program that calls `configure` itself, or starts others, keeps what was said here."""


class RunCommand(TyperCommand):
    """Reads its own options up to the script or `-m MODULE`; everything from there on is the program's, dashes and
    all."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put a `--` where the program's own arguments begin."""
        valued = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts}
        index = 0
        while index < len(args) and args[index].startswith("-") and args[index] not in ("-", "--"):
            given = args[index]
            index += 2 if given in valued else 1
            if given == "-m" or (given.startswith("-m") and not given.startswith("--")):
                break
        if index < len(args) and args[index] != "--":
            args = [*args[:index], "--", *args[index:]]
        return super().parse_args(ctx, args)


def run(
    program: Annotated[
        list[str] | None, typer.Argument(metavar="SCRIPT [ARGS]...", help="The program and its arguments.")
    ] = None,
    module: Annotated[
        str | None, typer.Option("-m", metavar="MODULE", help="Run a module as python -m does; its arguments follow.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The agent's name (default: the script's).")] = None,
    agent_version: Annotated[str | None, typer.Option(help="The agent's version.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="The collector (default http://127.0.0.1:4318).")] = None,
    environment: Annotated[str | None, typer.Option(help="production, staging, ...")] = None,
    user_id: Annotated[str | None, typer.Option(help="The end user, where no run names one.")] = None,
    conversation_id: Annotated[str | None, typer.Option(help="The conversation, where no run names one.")] = None,
    no_content: Annotated[
        bool, typer.Option("--no-content", help="Record no prompts, answers, arguments or results.")
    ] = False,
) -> None:
    """Run a Python program as python would, and record its agents. Options come before the script.

    Everything that configure() takes can be set by LOOPSCOPE_* variables (docs/configuration.md). When the collector is
    not there the program runs as always, and what was recorded is delivered later.
    """
    arguments = list(program or [])
    script = arguments.pop(0) if module is None and arguments else None
    if module is None and script is None:
        raise fail("what shall run? Give a script, or -m and a module: loopscope run my_agent.py")
    if script not in (None, "-") and not Path(script).exists():
        raise fail(f"can't open {str(Path(script).absolute())!r}: there is no such file")
    chosen = Program(script, module, arguments)
    settings: dict[str, Any] = {
        "agent": agent,
        "agent_version": agent_version,
        "endpoint": endpoint,
        "environment": environment,
        "user_id": user_id,
        "conversation_id": conversation_id,
    }
    _configure(chosen, settings | ({"capture_content": False} if no_content else {}))
    os.environ.update({_VARIABLES[name]: value for name, value in settings.items() if value is not None})
    if no_content:
        os.environ["LOOPSCOPE_CAPTURE_CONTENT"] = "false"
    raise chosen


def _configure(program: Program, settings: dict[str, Any]) -> None:
    import sys

    sys.argv[0] = program.label
    try:
        loopscope.configure(**settings)
    except loopscope.ConfigurationError as error:
        raise fail(str(error)) from error
    except Exception:
        # The program comes first: it runs, and the log says why nothing is recorded.
        logging.getLogger("loopscope").exception("loopscope: recording could not start; the program runs without it")
