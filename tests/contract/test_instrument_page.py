"""The page "Instrument an existing agent" shows the programs in examples/instrument, each as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/instrument-an-existing-agent.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples/instrument"


def test_the_page_shows_every_program_as_it_is() -> None:
    shown = dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert shown == {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}


def test_the_page_shows_no_other_program() -> None:
    assert PAGE.count("```python") == len(list(EXAMPLES.glob("*.py")))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", PAGE):
        assert not target or (ROOT / "docs" / target).exists(), target
