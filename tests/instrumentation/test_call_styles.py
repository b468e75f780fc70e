"""Every way to ask, under everything that can befall a call: recorded once and right, and the host sees no difference.

Each cell runs the same code of a host twice against the same answers over real HTTP: with the SDK as it is, then
instrumented. What the host saw, and what the provider received, must be the same; and there must be exactly one span
for each API call, with the status, usage, text, stop reason and error that `call_conditions` says.
"""

import asyncio
import gc
import json
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope

from .call_conditions import CONDITIONS, ENOUGH, Condition, Expected, Scene, why_not
from .call_styles import STYLES, Host, Style, acted, run_to_its_end
from .conftest import Configure, delivered
from .provider_server import DEADLINE_SECONDS, Recorded, Request, Server, python_value

CELLS = [
    pytest.param(
        style, condition, asynchronous, id=f"{'async' if asynchronous else 'sync'} {style.label}, {condition.name}"
    )
    for style in STYLES
    for condition in CONDITIONS
    if why_not(style, condition) is None
    for asynchronous in (False, True)
]
VOLATILE_HEADERS = {"idempotency-key", "host", "authorization"}


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """Collections look at what a cell made, not at every module that was imported before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("style", "condition", "asynchronous"), CELLS)
def test_a_call(
    style: Style, condition: Condition, *, asynchronous: bool, server: Server, configure: Configure
) -> None:
    assert not hasattr(anthropic.Anthropic.request, "__wrapped__"), "the first run is of the SDK as it is"
    host, requests = play(style, condition, asynchronous=asynchronous, server=server)
    configure()
    instrumented, same_requests = play(style, condition, asynchronous=asynchronous, server=server)
    assert instrumented.seen == host.seen
    assert len(host.seen) > 0 or condition.reading == "never"
    assert [comparable(request) for request in same_requests] == [comparable(request) for request in requests]
    delivered()
    expected = condition.expected(style)
    # The runs and tool calls that were found from the history have tests of their own.
    spans = [span for span in server.spans() if span.operation not in ("invoke_agent", "execute_tool")]
    assert len(spans) == len(expected), [span.span.name for span in spans]
    last_of = same_requests[-len(expected) :] if not expected[-1].attempts else same_requests[-1:]
    for span, right, request in zip(spans, expected, last_of, strict=True):
        check(span, right, style, request)


def play(style: Style, condition: Condition, *, asynchronous: bool, server: Server) -> tuple[Host, list[Request]]:
    """Run the host's code of a cell once; what it saw, and what the provider received."""
    scene = condition.scene(style)
    server.replies, server.counts = ([], scene.replies) if style.kind == "count" else (scene.replies, [])
    before = len(server.messages), len(server.others)
    options: dict[str, Any] = {
        "api_key": "test-key",
        "base_url": server.url,
        "max_retries": condition.max_retries,
        # Only reading is cut short: on a busy machine a request might else not even be sent.
        "timeout": anthropic.Timeout(DEADLINE_SECONDS, read=condition.timeout),
    }
    enough = ENOUGH.get(style.kind, "") if condition.cancelled or condition.reading in ("dropped", "left") else ""
    if asynchronous:
        host = asyncio.run(_play_async(style, condition, scene, options, enough))
    else:
        host = _play_sync(style, condition, scene, options, enough)
    scene.release.set()
    if condition.name == "timeout":
        assert scene.waiting.wait(DEADLINE_SECONDS), "the request that was not answered arrives all the same"
    return host, [*server.messages[before[0] :], *server.others[before[1] :]]


def _play_sync(style: Style, condition: Condition, scene: Scene, options: dict[str, Any], enough: str) -> Host:
    with anthropic.Anthropic(**options, http_client=anthropic.DefaultHttpxClient(verify=False)) as client:
        host = Host(client, asynchronous=False, reading=condition.reading, enough=enough)
        skip_where_missing(style, client)
        if condition.cancelled:
            # Ctrl-C comes when the call waits for more.
            read_all = threading.Event()
            host.saw_enough = read_all.set
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            interrupter = threading.Thread(
                target=_interrupt, args=(scene, read_all if style.kind in ENOUGH else scene.waiting), daemon=True
            )
            interrupter.start()
            try:
                run_to_its_end(acted(style, host))
            finally:
                interrupter.join(DEADLINE_SECONDS)
                signal.signal(signal.SIGINT, before)
        else:
            run_to_its_end(acted(style, host))
        scene.release.set()
    return host


def _interrupt(scene: Scene, ready: threading.Event) -> None:
    """What Ctrl-C does, once the main thread waits in the HTTP library for what the server holds back."""
    main = threading.main_thread().ident
    assert main is not None
    if not (scene.waiting.wait(DEADLINE_SECONDS) and ready.wait(DEADLINE_SECONDS)):
        return
    frames: Any = sys
    while not frames._current_frames()[main].f_code.co_filename.endswith("_backends/sync.py"):
        threading.Event().wait(0.002)
    signal.pthread_kill(main, signal.SIGINT)


async def _play_async(style: Style, condition: Condition, scene: Scene, options: dict[str, Any], enough: str) -> Host:
    http_client = anthropic.DefaultAsyncHttpxClient(verify=False)
    async with anthropic.AsyncAnthropic(**options, http_client=http_client) as client:
        host = Host(client, asynchronous=True, reading=condition.reading, enough=enough)
        skip_where_missing(style, client)
        task = asyncio.create_task(acted(style, host))
        if condition.cancelled and style.kind in ENOUGH:
            # Called as soon as the task waits for more.
            host.saw_enough = lambda: asyncio.get_running_loop().call_soon(task.cancel) and None
        elif condition.cancelled:
            assert await asyncio.to_thread(scene.waiting.wait, DEADLINE_SECONDS)
            task.cancel()
        await task
        scene.release.set()
    return host


def skip_where_missing(style: Style, client: Any) -> None:
    missing = style.missing(client)
    if missing is not None:
        pytest.skip(missing)


def comparable(request: Request) -> tuple[str, dict[str, str], bytes]:
    headers = {name: value for name, value in request.headers.items() if name not in VOLATILE_HEADERS}
    return request.path, headers, request.body


def check(span: Recorded, right: Expected, style: Style, request: Request) -> None:
    """One span against what it must say."""
    assert span.operation == ("count_tokens" if style.kind == "count" else "chat")
    assert span["loopscope.request.body"] == request.body
    assert span.get("http.response.status_code") == right.status
    assert span.failed == (right.error_type is not None)
    assert (span.get("error.type") or "").endswith(right.error_type or "")
    assert (span.get("error.type") is None) == (right.error_type is None)
    assert span.get("loopscope.error.class") == right.error_class
    assert span.get("loopscope.partial") == (True if right.partial else None)
    assert span.get("gen_ai.usage.output_tokens") == right.output_tokens
    assert span.get("gen_ai.usage.input_tokens") == right.input_tokens
    reasons = [right.stop_reason] if right.stop_reason is not None else None
    assert span.get("gen_ai.response.finish_reasons") == reasons
    body = span.get("loopscope.response.body")
    if right.content is not None:
        assert json.loads(body)["content"] == right.content
    else:
        assert body == right.body
    assert span["loopscope.http.attempts"] == max(len(right.attempts), 1)
    assert statuses(span) == right.attempts
    assert (span.get("gen_ai.request.stream") is True) == (style.kind == "stream")
    streamed = style.kind == "stream" and right.content is not None
    assert (span.get("gen_ai.response.time_to_first_chunk") is not None) == streamed
    assert (span.get("loopscope.stream.longest_gap") is not None) == streamed
    known = right.output_tokens is not None and style.kind != "count"
    assert (span.get("loopscope.cost.usd") is not None) == known


def statuses(span: Recorded) -> tuple[int | None, ...]:
    """The HTTP status of each request that has an event."""
    found: list[int | None] = []
    for event in span.span.events:
        if event.name == "loopscope.http.attempt":
            attributes = {item.key: python_value(item.value) for item in event.attributes}
            found.append(attributes.get("http.response.status_code"))
    return tuple(found)


def test_a_cell_is_not_left_out_unseen() -> None:
    """Each column and each row has cells, and only the kinds that the table names are without."""
    assert {condition.name for condition in CONDITIONS} == {param.values[1].name for param in CELLS}  # pyright: ignore
    left_out = [(style, condition) for style in STYLES for condition in CONDITIONS if why_not(style, condition)]
    assert len(CELLS) == 2 * (len(STYLES) * len(CONDITIONS) - len(left_out))
    assert all(
        condition.name not in ("ok", "400", "429 then ok", "529", "timeout", "cancelled") for _, condition in left_out
    )
    assert loopscope.stats()["internal_errors"] == 0


def test_the_page_shows_these_cells() -> None:
    """docs/coverage.md has this test's table; `scripts/document_coverage.py` writes it."""
    root = Path(__file__).resolve().parents[2]
    script = runpy.run_path(str(root / "scripts/document_coverage.py"))
    text = (root / "docs/coverage.md").read_text(encoding="utf-8")
    assert script["page"](text) == text
    assert text.count("| yes ") >= len(CELLS) // 2 // 2
