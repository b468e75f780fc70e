"""Writes docs/attributes.md from loopscope_schemas/attributes.py: `.venv/bin/python scripts/document_attributes.py`."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "schemas/loopscope_schemas/attributes.py"
TARGET = ROOT / "docs/attributes.md"


def attributes(source: str) -> list[tuple[str, str]]:
    """(attribute name, one line) of every constant; raises ValueError for one without its line."""
    body = ast.parse(source).body
    found: list[tuple[str, str]] = []
    for position, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Constant):
            continue
        following = body[position + 1] if position + 1 < len(body) else None
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
            raise ValueError(f"line {node.lineno}: {ast.unparse(node.target)} has no line that says what it means")
        found.append((str(node.value.value), str(following.value.value).strip()))
    return found


def page(source: str) -> str:
    """The page's text."""
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in attributes(source))
    return (
        "# Attributes\n\n"
        "Every attribute that Loopscope writes or reads. Made from `schemas/loopscope_schemas/attributes.py` by\n"
        "`scripts/document_attributes.py`.\n\n"
        f"| attribute | meaning |\n|---|---|\n{rows}\n"
    )


if __name__ == "__main__":
    TARGET.write_text(page(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
