"""Writes the table of docs/coverage.md from its test: `.venv/bin/python scripts/document_coverage.py`.

The rows and columns are those of `tests/instrumentation/test_call_styles.py`. What stands around the table is written
by hand.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/coverage.md"
BEGIN, END = "<!-- call styles: begin -->\n", "<!-- call styles: end -->\n"


def table() -> str:
    """The table, and why some of its cells cannot exist."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from tests.instrumentation.call_conditions import CONDITIONS, why_not
    from tests.instrumentation.call_styles import STYLES

    reasons: list[str] = []
    rows: list[str] = []
    for style in STYLES:
        cells: list[str] = []
        for condition in CONDITIONS:
            reason = why_not(style, condition)
            if reason is None:
                cells.append("yes")
                continue
            if reason not in reasons:
                reasons.append(reason)
            cells.append(f"({reasons.index(reason) + 1})")
        rows.append(f"| `{style.label}` | {' | '.join(cells)} |\n")
    names = " | ".join(condition.name for condition in CONDITIONS)
    head = f"| call | {names} |\n|{'---|' * (len(CONDITIONS) + 1)}\n"
    notes = "".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1))
    return f"{head}{''.join(rows)}\nCells that cannot exist:\n\n{notes}"


def page(text: str) -> str:
    """The page with its table as the test has it today. Raises ValueError when the page has lost its markers."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{TARGET.name} has no {BEGIN.strip()!r} and {END.strip()!r}; put them around the table")
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
