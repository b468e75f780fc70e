"""`loopscope up`: collector, embedded engine and dashboards in one process tree."""

from pathlib import Path
from typing import Annotated, Any

import typer

from loopscope.cli._rooms import fail, room


def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the queue and the embedded store live (default ~/.loopscope).")
    ] = None,
    otlp_http_port: Annotated[int | None, typer.Option(help="OTLP over HTTP (default 4318; 0: a free one).")] = None,
    clickhouse_port: Annotated[
        int | None, typer.Option(help="ClickHouse HTTP interface of the embedded engine (default 8123; 0: a free one).")
    ] = None,
    dashboard_port: Annotated[int | None, typer.Option(help="Dashboards (default 8501; 0: a free one).")] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Start no dashboards.")] = False,
    bind: Annotated[
        str | None,
        typer.Option(help="Address to listen on (default 127.0.0.1). Beyond loopback LOOPSCOPE_INGEST_KEYS and "
                     "LOOPSCOPE_READ_KEYS are required."),
    ] = None,
) -> None:  # fmt: skip
    """Receive, store and show what agents send. Prints the addresses, one a line, when each is ready.

    Every setting is also an environment variable (docs/configuration.md); LOOPSCOPE_DSN=clickhouse://user:password@host:8123/db
    stores in a server instead of the embedded engine. SIGTERM and Ctrl-C drain what was received and exit 0.
    """
    process = room("loopscope_collector.process", extra="all")
    settings = room("loopscope_collector.settings", extra="all")
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "otlp_http_port": otlp_http_port,
        "clickhouse_port": clickhouse_port,
        "dashboard_port": dashboard_port,
        "bind": bind,
        "dashboard": False if no_dashboard else None,
    }
    try:
        chosen = settings.CollectorSettings(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise fail(settings.explain(error)) from error
    raise typer.Exit(process.run_collector(chosen))
