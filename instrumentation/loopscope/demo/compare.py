"""Holds what was recorded of the demo against `expected.yml`, figure by figure.

Pure, but for reading the file. Later figures (findings, alerts) are added to the file and to `observed`; nothing here
changes for them.
"""

from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, cast

Expected = dict[str, dict[str, dict[str, Any]]]
"""scene -> agent -> figure -> value."""


def load_expected() -> Expected:
    """What must be seen of each scene. Raises ModuleNotFoundError without PyYAML."""
    import yaml

    text = resources.files("loopscope.demo").joinpath("expected.yml").read_text(encoding="utf-8")
    return cast("Expected", yaml.safe_load(text)["scenes"])


def compare(
    expected: Mapping[str, Mapping[str, Mapping[str, Any]]],
    observed: Mapping[str, Mapping[str, Any]],
    figures: Collection[str] | None = None,
) -> list[str]:
    """The differences, one line each; an empty list means that all is as expected.

    `observed` is agent -> figure -> value. `figures` limits the comparison to what a source can know; without it an
    expected figure that was not observed is a difference.
    """
    differences: list[str] = []
    for scene, agents in expected.items():
        for agent, wanted in agents.items():
            seen = observed.get(agent)
            if seen is None:
                differences.append(f"{scene}: nothing was seen of the agent {agent}")
                continue
            for figure, value in wanted.items():
                if figures is not None and figure not in figures:
                    continue
                if figure not in seen:
                    differences.append(f"{scene}: {agent}: {figure} was not observed, expected {value}")
                elif seen[figure] != value:
                    differences.append(f"{scene}: {agent}: {figure} is {seen[figure]}, expected {value}")
    return differences
