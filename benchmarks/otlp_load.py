"""Pre-encoded OTLP requests and the process that sends them; used by `ingest`.

Three shapes of traffic: `genai` and `loopscope` are runs of 12 turns whose every call carries the full history (12
chat, 11 tool and one agent span, about 18 KB a span) in the OpenTelemetry GenAI conventions and in Loopscope's own
dialect; `narrow` is spans of at most 2 KB without content. Texts are drawn from a vocabulary, so that they compress as
texts do; no two runs share one.
"""

import http.client
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from loopscope_schemas import attributes as names

TURNS = 12
GROWTH_CHARACTERS = 4600
"""What one turn adds to the history: a question or tool result, and the answer."""
SYSTEM_CHARACTERS = 2500
REQUEST_BYTES = 1024 * 1024
"""Spans are batched up to about so much, as exporters under load do."""
NARROW_SPANS_A_TRACE = 25
MODEL = "claude-sonnet-4-5"
SENDERS = 4


def requests(mode: str, payload_bytes: int, seed: int, now_ns: int) -> Iterator[tuple[bytes, int]]:
    """Encoded requests with their number of spans, until about `payload_bytes` are reached."""
    words = _Words(seed)
    make: Callable[[_Words, int, int], list[Span]] = _narrow_trace if mode == "narrow" else _run_of(mode)
    made = number = 0
    batch = _empty(mode)
    spans = size = 0
    while made < payload_bytes:
        number += 1
        started = now_ns - 3_600_000_000_000 + number * 1_000_000
        for span in make(words, number, started):
            batch.resource_spans[0].scope_spans[0].spans.append(span)
            spans += 1
            size += span.ByteSize()
            if size >= REQUEST_BYTES:
                body = batch.SerializeToString()
                made += len(body)
                yield body, spans
                batch, spans, size = _empty(mode), 0, 0
    if spans:
        yield batch.SerializeToString(), spans


def send_all(address: tuple[str, int], mode: str, payload_bytes: int, pipe: Connection) -> None:
    """In a process of its own: encode, report, wait for the start, send everything, report."""
    bodies = list(requests(mode, payload_bytes, seed=1, now_ns=time.time_ns()))
    pipe.send({"bytes": sum(len(body) for body, _ in bodies), "spans": sum(spans for _, spans in bodies)})
    pipe.recv()
    waiting = iter(bodies)
    lock = threading.Lock()
    refused = [0] * SENDERS

    def send(index: int) -> None:
        connection = http.client.HTTPConnection(*address, timeout=120)
        while True:
            with lock:
                item = next(waiting, None)
            if item is None:
                connection.close()
                return
            while True:
                connection.request("POST", "/v1/traces", item[0], {"Content-Type": "application/x-protobuf"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    break
                if answer.status != 503:
                    sys.exit(f"the collector answered {answer.status}: {text[:300]!r}")
                refused[index] += 1
                time.sleep(0.1)

    threads = [threading.Thread(target=send, args=(index,)) for index in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send({"refused": sum(refused)})


class _Words:
    """Texts out of 20,000 made-up words, frequent ones often."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        lengths = self._random.choices(range(2, 11), k=20_000)
        words = ["".join(self._random.choices(letters, range(26, 0, -1), k=length)) for length in lengths]
        # Drawing single words is slow; texts are put together from many short phrases, each drawn once.
        weights = [1 / (rank + 5) for rank in range(len(words))]
        drawn = self._random.choices(words, weights, k=600_000)
        self._phrases = [" ".join(drawn[at : at + 6]) for at in range(0, len(drawn), 6)]

    def text(self, characters: int) -> str:
        phrases = self._random.choices(self._phrases, k=characters // 44)
        phrases.insert(len(phrases) // 2, str(self._random.getrandbits(64)))
        return ". ".join(phrases)

    def id(self, size: int) -> bytes:
        return self._random.getrandbits(size * 8).to_bytes(size, "big")


def _empty(mode: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource: ResourceSpans = request.resource_spans.add()
    for key, value in ((names.SERVICE_NAME, "bench"), (names.HOST_NAME, "bench-host"), (names.PROCESS_ID, "p1")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_spans.add().scope
    scope.name = "loopscope" if mode == "loopscope" else "opentelemetry.instrumentation.genai.anthropic"
    scope.version = "0.1.0"
    return request


def _span(trace_id: bytes, span_id: bytes, parent: bytes, name: str, start: int, values: dict[str, Any]) -> Span:
    span = Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=name,
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 1_500_000,
    )
    for key, value in values.items():
        target = span.attributes.add(key=key).value
        if isinstance(value, bytes):
            target.bytes_value = value
        elif isinstance(value, int):
            target.int_value = value
        elif isinstance(value, list):
            for item in value:
                target.array_value.values.add(string_value=item)
        else:
            target.string_value = value
    return span


def _run_of(mode: str) -> Callable[[_Words, int, int], list[Span]]:
    own = mode == "loopscope"

    def run(words: _Words, _number: int, started: int) -> list[Span]:
        trace_id, root = words.id(16), words.id(8)
        common: dict[str, Any] = {names.AGENT_NAME: "bench"}
        if own:
            common[names.RUN_ID] = trace_id.hex()
        system = words.text(SYSTEM_CHARACTERS)
        history: list[dict[str, Any]] = [_user(words.text(GROWTH_CHARACTERS // 2), own=own)]
        spans: list[Span] = []
        said = ""
        for turn in range(1, TURNS + 1):
            call_id = f"toolu_{words.id(9).hex()}"
            arguments = {"query": words.text(200)}
            said = words.text(GROWTH_CHARACTERS // 4)
            answer = _assistant(said, call_id, arguments, own=own)
            values = common | {
                names.OPERATION_NAME: "chat",
                names.PROVIDER_NAME: "anthropic",
                names.REQUEST_MODEL: MODEL,
                names.RESPONSE_MODEL: MODEL,
                names.RESPONSE_ID: f"msg_{words.id(9).hex()}",
                names.RESPONSE_FINISH_REASONS: ["tool_use"],
                names.USAGE_INPUT_TOKENS: 1000 * turn,
                names.USAGE_OUTPUT_TOKENS: 400,
                names.USAGE_CACHE_READ_TOKENS: 900 * turn,
                names.TURN: turn,
            }
            values |= _own_content(system, history, answer) if own else _genai_content(system, history, answer)
            at = started + turn * 10_000_000
            spans.append(_span(trace_id, words.id(8), root, f"chat {MODEL}", at, values))
            history.append(answer)
            if turn == TURNS:
                break
            result = words.text(GROWTH_CHARACTERS * 3 // 4 - 200)
            tool = common | {
                names.OPERATION_NAME: "execute_tool",
                names.TOOL_NAME: "search",
                names.TOOL_CALL_ID: call_id,
                names.TOOL_CALL_ARGUMENTS: json.dumps(arguments),
                names.TOOL_CALL_RESULT: json.dumps(result),
                names.TURN: turn,
            }
            spans.append(_span(trace_id, words.id(8), root, "execute_tool search", at + 5_000_000, tool))
            history.append(_tool_result(call_id, result, own=own))
        agent = common | {names.OPERATION_NAME: "invoke_agent"}
        if own:
            agent |= {names.RUN_OUTCOME: "completed", names.RUN_FINAL_ANSWER: json.dumps(said)}
        spans.append(_span(trace_id, root, b"", "invoke_agent bench", started, agent))
        return spans

    return run


def _own_content(system: str, history: list[dict[str, Any]], answer: dict[str, Any]) -> dict[str, Any]:
    request = {"model": MODEL, "max_tokens": 4096, "system": system, "messages": history}
    response = {"type": "message", "role": "assistant", "model": MODEL, "content": answer["content"]}
    return {names.REQUEST_BODY: json.dumps(request).encode(), names.RESPONSE_BODY: json.dumps(response).encode()}


def _genai_content(system: str, history: list[dict[str, Any]], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        names.SYSTEM_INSTRUCTIONS: json.dumps([{"type": "text", "content": system}]),
        names.INPUT_MESSAGES: json.dumps(history),
        names.OUTPUT_MESSAGES: json.dumps([answer | {"finish_reason": "tool_call"}]),
    }


def _user(text: str, *, own: bool) -> dict[str, Any]:
    return {"role": "user", "content": text} if own else {"role": "user", "parts": [{"type": "text", "content": text}]}


def _assistant(text: str, call_id: str, arguments: dict[str, Any], *, own: bool) -> dict[str, Any]:
    if own:
        use = {"type": "tool_use", "id": call_id, "name": "search", "input": arguments}
        return {"role": "assistant", "content": [{"type": "text", "text": text}, use]}
    call = {"type": "tool_call", "id": call_id, "name": "search", "arguments": arguments}
    return {"role": "assistant", "parts": [{"type": "text", "content": text}, call]}


def _tool_result(call_id: str, result: str, *, own: bool) -> dict[str, Any]:
    if own:
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": result}]}
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": result}]}


def _narrow_trace(words: _Words, number: int, started: int) -> list[Span]:
    trace_id, root = words.id(16), words.id(8)
    spans: list[Span] = []
    for index in range(NARROW_SPANS_A_TRACE):
        values: dict[str, Any] = {
            names.OPERATION_NAME: "chat" if index else "invoke_agent",
            names.AGENT_NAME: f"agent-{number % 7}",
            names.PROVIDER_NAME: "anthropic",
            names.REQUEST_MODEL: MODEL,
            names.RESPONSE_MODEL: MODEL,
            names.RESPONSE_ID: f"msg_{words.id(9).hex()}",
            names.USAGE_INPUT_TOKENS: 500 + index,
            names.USAGE_OUTPUT_TOKENS: 100,
            "deployment.region": "eu-west-1",
            "app.feature": words.text(60),
            "app.note": words.text(300),
        }
        span_id = words.id(8) if index else root
        spans.append(_span(trace_id, span_id, root if index else b"", "chat", started + index * 1_000_000, values))
    return spans
