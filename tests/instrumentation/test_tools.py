"""Tool calls: arguments, results, attempts, errors, and values that JSON or UTF-8 cannot hold."""

import asyncio
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopscope
from loopscope._internal.jsontext import json_text

from .conftest import Configure, delivered
from .provider_server import Recorded, Server


def tools(server: Server) -> list[Recorded]:
    return [span for span in server.spans() if span.operation == "execute_tool"]


def test_arguments_are_named_and_taken_before_the_tool_changes_them(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.tool(name="store", side_effects=True, idempotent=False)
    def store(key: str, /, values: list[int], *rest: int, flag: bool = False, **more: Any) -> dict[str, Any]:
        values.clear()
        return {"stored": key, "more": sorted(more)}

    assert str(inspect.signature(store)).startswith("(key: str, /, values: list[int]")
    with loopscope.run("r") as run:
        assert store("k", [1, 2], 3, 4, zeta=1) == {"stored": "k", "more": ["zeta"]}
    delivered()
    (call,) = tools(server)
    assert json.loads(call["gen_ai.tool.call.arguments"]) == {"key": "k", "values": [1, 2], "rest": [3, 4], "zeta": 1}
    assert json.loads(call["gen_ai.tool.call.result"]) == {"stored": "k", "more": ["zeta"]}
    assert call["gen_ai.tool.name"] == "store"
    assert call["loopscope.tool.side_effects"] is True
    assert call["loopscope.tool.idempotent"] is False
    assert call["loopscope.run.id"] == run.id
    assert call["loopscope.tool.attempt"] == 1


def test_attempts_count_after_an_error_with_the_same_arguments(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.tool
    def shaky(what: str, works: list[bool]) -> str:
        if not works.pop():
            raise TimeoutError(what)
        return what

    def attempt(what: str, works: bool) -> None:
        try:
            shaky(what, [works])
        except TimeoutError:
            assert not works

    with loopscope.run("r"):
        for what, works in (("a", False), ("b", False), ("a", False), ("a", True), ("a", True)):
            attempt(what, works)
    with loopscope.run("another"):
        attempt("b", False)
    delivered()
    calls = [(json.loads(c["gen_ai.tool.call.arguments"])["what"], c["loopscope.tool.attempt"]) for c in tools(server)]
    assert calls == [("a", 1), ("b", 1), ("a", 2), ("a", 1), ("a", 1), ("b", 1)]


def test_errors_are_recorded_and_raised(server: Server, configure: Configure) -> None:
    configure()
    missing = FileNotFoundError("no such customer")

    @loopscope.tool
    async def find() -> None:
        raise missing

    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await find()
        assert caught.value is missing

    asyncio.run(main())
    delivered()
    (call,) = tools(server)
    assert call.failed
    assert call["error.type"] == "FileNotFoundError"
    assert call["loopscope.error.class"] == "deterministic"
    assert call.span.status.message == "no such customer"
    assert call["loopscope.run.id"] == call.span.trace_id.hex()


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_whose_text_fails_is_still_recorded(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.tool
    def fails() -> None:
        raise UnreadableError

    with pytest.raises(UnreadableError):
        fails()
    delivered()
    assert tools(server)[0]["error.type"].endswith("UnreadableError")


def test_any_value_passes(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.tool
    def echo(value: Any) -> Any:
        return value

    circular: list[Any] = []
    circular.append(circular)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    values: list[Any] = [
        "lone \ud800 surrogate",
        {"\udfff": 1},
        "\x00",
        b"bytes",
        float("nan"),
        {(1, 2): 3},
        Unprintable(),
        circular,
        deep,
        "x" * 10_000_000,
        Path("/tmp"),
        10**400,
    ]
    for value in values:
        assert echo(value) is value
    delivered()
    calls = tools(server)
    assert len(calls) == len(values)
    results = [json.loads(call["gen_ai.tool.call.result"]) for call in calls]
    assert results[:3] == values[:3]
    assert results[9] == values[9]
    assert results[11] == values[11]
    assert results[4] == {"__loopscope_repr__": "nan", "type": "builtins.float"}
    assert results[6]["__loopscope_repr__"].endswith("whose repr() fails>")
    assert "\\ud800" in calls[0]["gen_ai.tool.call.result"]


@dataclass
class Point:
    x: int
    inner: Any = None


def test_objects_with_fields_are_objects() -> None:
    from anthropic.types import TextBlock

    assert json.loads(json_text(Point(1, Point(2)))) == {"x": 1, "inner": {"x": 2, "inner": None}}
    assert json.loads(json_text([TextBlock(type="text", text="t")]))[0]["text"] == "t"
    assert json.loads(json_text({1, 2}))["__loopscope_repr__"] == "{1, 2}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_values_come_back_equal(value: Any) -> None:
    assert json.loads(json_text(value)) == value


@given(st.text(st.characters(categories=["Cs", "L", "Cc"])))
def test_texts_with_surrogates_come_back(text: str) -> None:
    written = json_text({"t": text})
    # Two escaped halves that stand together are one character, to any JSON reader.
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(written)["t"].encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == expected


@given(st.recursive(st.binary() | st.floats() | st.complex_numbers(), lambda i: st.lists(i) | st.tuples(i, i)))
def test_whatever_it_is_the_text_is_json(value: Any) -> None:
    json.loads(json_text(value).decode("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
