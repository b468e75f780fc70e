"""The `loopscope` command: the composition root. Each sub-command imports its room only when it is called.

Exit codes: 0 done, 1 failed, 2 called wrongly or cannot start (the message says what to do).
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from loopscope.cli._program import Program
from loopscope.cli.demo import demo
from loopscope.cli.run import RunCommand, run
from loopscope.cli.stub import stub
from loopscope.cli.up import up

app = typer.Typer(
    name="loopscope",
    help="A flight recorder for LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(up)
app.command()(demo)
app.command()(stub)
app.command(cls=RunCommand)(run)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loopscope {version('loopscope')}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]  (typer calls it)
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A flight recorder for LLM agents."""


def main() -> None:
    """Entry point of the `loopscope` script."""
    try:
        sys.exit(app())
    except Program as chosen:
        program = chosen
    # Out here no parser of ours catches what the program raises, and no exception of ours is its context.
    program.prepare()
    program.execute()
