"""`loopscope stub`: a stand-in for the Messages API, to try an agent without a key, a network or a bill."""

from pathlib import Path
from typing import Annotated

import typer

from loopscope.cli._rooms import fail, room


def stub(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback only with --key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8089,
    log_file: Annotated[Path | None, typer.Option(help="Append one JSON line for each request to this file.")] = None,
    seed: Annotated[int, typer.Option(help="Changes the ids in the answers, and nothing else.")] = 0,
    latency: Annotated[float, typer.Option(help="Mean seconds before an answer.", min=0)] = 0.0,
    key: Annotated[
        str | None, typer.Option(help="API key that requests must carry.", envvar="LOOPSCOPE_STUB_KEY")
    ] = None,
) -> None:
    """Serve a stand-in for the Messages API; prints its address. Point a client's base_url at it."""
    server = room("loopscope.stub", extra="stub")
    try:
        server.serve(
            host,
            port,
            log_file=log_file,
            seed=seed,
            latency_seconds=latency,
            key=key,
            on_ready=_announce,
        )
    except (OSError, ValueError) as error:
        raise fail(str(error)) from error


def _announce(url: str) -> None:
    typer.echo(f"messages-api {url}")
