"""`loopscope flush`: deliver what dead processes left in the spool."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from loopscope.cli._rooms import fail
from loopscope.exceptions import ConfigurationError


def flush(
    endpoint: Annotated[
        str | None,
        typer.Option(help="Address that the spans are for (default LOOPSCOPE_ENDPOINT, as the agent has it)."),
    ] = None,
    spool_dir: Annotated[
        Path | None, typer.Option(help="Where the spool is (default LOOPSCOPE_SPOOL_DIR or ~/.loopscope/spool).")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to go on trying.", min=0, max=86_400)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Deliver spans that killed or offline processes left on this machine. Any next agent does the same by itself.

    Exit codes: 0 everything is delivered or nothing was there, 1 something is left or was refused, 2 called wrongly.
    """
    from loopscope._internal.config import resolve
    from loopscope._internal.flushing import deliver_left
    from loopscope._internal.runtime import VERSION

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    given: dict[str, Any] = {"endpoint": endpoint, "spool_dir": spool_dir}
    if spool_dir is not None and not spool_dir.is_dir():
        raise fail(f"--spool-dir {str(spool_dir)!r}: there is no such directory")
    try:
        config = resolve({name: value for name, value in given.items() if value is not None})
    except ConfigurationError as error:
        raise fail(str(error)) from error
    done = deliver_left(config, VERSION, timeout)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done)))
    else:
        typer.echo(f"{done.delivered} of {done.found} spans delivered to {done.endpoint}")
        for count, what in (
            (done.left, "spans are left: the collector did not take them in time; try again, or raise --timeout"),
            (done.refused, f"spans were refused for good and are set aside under {config.spool_dir}"),
            (done.held_files, "spool files belong to processes that still run; they deliver them themselves"),
            (done.dropped_before, "spans had been dropped before, as the spool was full"),
        ):
            if count:
                typer.echo(f"{count} {what}")
        for other in done.elsewhere:
            typer.echo(f"{other.files} files ({other.bytes} bytes) wait for {other.endpoint}; flush with --endpoint")
    raise typer.Exit(0 if done.complete else 1)
