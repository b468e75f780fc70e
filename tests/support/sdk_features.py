"""What the installed anthropic SDK can do, so that a test of what it cannot is skipped with that reason.

`make test-matrix` runs the tests of the instrumentation against old and new SDKs; each skip stands in
docs/coverage-versions.md with its reason.
"""

import functools
import importlib
import inspect
from typing import Any

import anthropic
import pytest

VERSION = anthropic.__version__
VERSION_NUMBERS = tuple(int(part) for part in VERSION.split(".")[:2])


@functools.lru_cache(maxsize=64)
def has(feature: str) -> bool:
    """Whether the SDK has a feature.

    A feature is a path of a client (`messages.count_tokens`), a name of the package or a module of it
    (`AnthropicFoundry`, `beta_tool`, `lib.aws.AnthropicAWS`), or an argument of `Anthropic` (`middleware=`).
    """
    if feature.endswith("="):
        return feature[:-1] in inspect.signature(anthropic.Anthropic).parameters
    if "." not in feature and hasattr(anthropic, feature):
        return True
    if feature.startswith("lib."):
        module, _, name = f"anthropic.{feature}".rpartition(".")
        try:
            return hasattr(importlib.import_module(module), name)
        except ImportError:
            return False
    found: Any = anthropic.Anthropic(api_key="only looked at")
    for part in feature.split("."):
        found = getattr(found, part, None)
    return found is not None


def reason(feature: str) -> str:
    """Why a test of a feature is skipped."""
    return f"the SDK has no {feature}"


def needs(*features: str) -> pytest.MarkDecorator:
    """Skips a test, or a parameter, unless the SDK has all these features; the reason names those it lacks."""
    lacking = [feature for feature in features if not has(feature)]
    return pytest.mark.skipif(bool(lacking), reason=reason(" and no ".join(lacking)))


def since(version: str, why: str) -> pytest.MarkDecorator:
    """Skips where the SDK is older than `version` (two numbers), for a behaviour that no name shows."""
    wanted = tuple(int(part) for part in version.split("."))
    return pytest.mark.skipif(wanted > VERSION_NUMBERS, reason=f"before {version}, {why}")


def need(feature: str) -> None:
    """Skips the running test unless the SDK has the feature."""
    if not has(feature):
        pytest.skip(reason(feature))
