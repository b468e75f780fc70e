"""Writes docs/api.md: the public Python interface, from its docstrings. A test compares the page with what this makes.

.venv/bin/python scripts/document_api.py
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = ("loopscope", "loopscope.testing")
HEAD = """# Python interface

Made from the docstrings by `scripts/document_api.py`. What stands here is public; what does not is free to change.
How to use it is told in [Instrument an existing agent](instrument-an-existing-agent.md).
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"## `{name}`\n")
        parts.append(_text(module))
        for member in sorted(module.__all__, key=lambda item: (not item[0].islower(), item.lower())):
            parts += _member(name, member, getattr(module, member), module)
    return "\n".join(parts).rstrip() + "\n"


def _member(module: str, name: str, value: Any, home: ModuleType) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"### class `{module}.{name}`\n"
        if not issubclass(value, BaseException):
            yield from _signature(name, value)
        yield _text(value)
        for attribute, member in sorted(vars(value).items()):
            if attribute.startswith("_"):
                continue
            if isinstance(member, property):
                yield f"- `.{attribute}`: {_line(member)}"
            elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
                function = getattr(value, attribute)
                if doc := _line(function):
                    yield f"- `.{attribute}{_call(function)}`: {doc}"
        yield ""
    elif callable(value):
        yield f"### `{module}.{name}`\n"
        yield from _signature(name, value)
        yield _text(value)
    elif home.__doc__ is not None:
        yield f"### `{module}.{name}`\n\n`{value!r}`\n"


def _signature(name: str, value: Any) -> Iterator[str]:
    yield f"```text\n{name}{_call(value)}\n```\n"


def _call(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    shown = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(signature.replace(parameters=shown, return_annotation=inspect.Signature.empty))


def _text(value: Any) -> str:
    return (inspect.getdoc(value) or "").strip() + "\n"


def _line(value: Any) -> str:
    """A docstring as one line."""
    return " ".join((inspect.getdoc(value) or "").split())


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
