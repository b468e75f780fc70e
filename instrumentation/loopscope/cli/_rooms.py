"""Imports a room on demand and says which extra to install when its libraries are absent."""

import importlib
from types import ModuleType

import typer


def room(module: str, *, extra: str) -> ModuleType:
    """The module; where a library of its extra is missing, one clear line and exit code 2."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("loopscope"):
            raise
        typer.echo(
            f"this command needs {error.name!r}, which is not installed: pip install 'loopscope[{extra}]'", err=True
        )
        raise typer.Exit(2) from error


def fail(message: str, code: int = 2) -> typer.Exit:
    """Say what is wrong on standard error; raise what is returned."""
    typer.echo(f"loopscope: {message}", err=True)
    return typer.Exit(code)
