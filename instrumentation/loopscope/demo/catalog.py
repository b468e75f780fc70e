"""The scenes of the demo, by name. `python -m loopscope.demo.scene NAME` runs one; the runner runs them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loopscope.demo import (
    airline,
    claims,
    file_job,
    hostile,
    house_model,
    inbox,
    killed,
    newsletter,
    not_found,
    rate_limit,
    research,
    slow_report,
    support,
    trips,
    web_pages,
)
from loopscope.stub import Script


@dataclass(frozen=True)
class Scene:
    """One scene: the agent's side runs in a process of its own (`main`), the model's side in the stand-in."""

    name: str
    agents: tuple[str, ...]
    main: Callable[[], None]
    scripts: Callable[[], Mapping[str, Script]]


SCENES: Final[tuple[Scene, ...]] = (
    # The long ones first: they decide when the demo ends.
    Scene("research", (research.AGENT,), research.main, research.scripts),
    Scene("slow-report", (slow_report.AGENT,), slow_report.main, slow_report.scripts),
    Scene("killed", (killed.AGENT,), killed.main, killed.scripts),
    Scene("support", (support.AGENT,), support.main, support.scripts),
    Scene("inbox", (inbox.AGENT,), inbox.main, inbox.scripts),
    Scene("rate-limit", (rate_limit.AGENT,), rate_limit.main, rate_limit.scripts),
    Scene("web-pages", (web_pages.AGENT,), web_pages.main, web_pages.scripts),
    Scene("file-job", (file_job.AGENT,), file_job.main, file_job.scripts),
    Scene("hostile", (hostile.AGENT,), hostile.main, hostile.scripts),
    Scene("not-found", (not_found.AGENT,), not_found.main, not_found.scripts),
    Scene("claims", (claims.AGENT,), claims.main, claims.scripts),
    Scene("trips", (trips.PLANNER, trips.FLIGHTS, trips.HOTELS), trips.main, trips.scripts),
    Scene("newsletter", (newsletter.AGENT,), newsletter.main, newsletter.scripts),
    Scene("house-model", (house_model.AGENT,), house_model.main, house_model.scripts),
)
"""The scenes that need nothing but Loopscope."""


def airline_scene(data: Path) -> Scene:
    """The replay of recorded conversations, which needs the recordings."""
    return Scene("airline", (airline.AGENT,), airline.main, lambda: airline.scripts(data))
