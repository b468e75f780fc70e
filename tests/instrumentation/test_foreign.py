"""An OTLP backend that is not Loopscope's collector: standard GenAI spans, field by field, and nothing of ours."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import loopscope
from loopscope._internal import backend, encoding, genai_messages, recording
from loopscope._internal.genai_spans import standard_span
from loopscope_schemas import attributes as at
from loopscope_schemas.wire import IDENTITY_PATH

from .conftest import Configure, ask, delivered
from .provider_server import IDENTITY, Recorded, Reply, Server, message, running_server, stream_events

PNG = base64.b64encode(b"\x89PNG").decode()
TOOL: Any = {"name": "look", "description": "Looks", "input_schema": {"type": "object", "properties": {"at": {}}}}
CONVERSATION: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "image", "source": {"type": "url", "url": "https://pictures.example/1.png"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me look.", "signature": "sig"},
            {"type": "tool_use", "id": "toolu_0", "name": "look", "input": {"at": "ünïcode", "n": 2**60}},
        ],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_0", "content": [{"type": "text", "text": "a cat"}]}],
    },
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "And now?"},
]
ANSWER: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Search.", "signature": "sig"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "cat"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
    {"type": "text", "text": "Looking."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "door"}},
]


@pytest.fixture
def foreign(server: Server) -> Server:
    server.answer_identity = lambda _: (404, b"not here")
    return server


def assert_standard(server: Server) -> list[Recorded]:
    """Everything that the backend received is of OpenTelemetry's conventions; the spans."""
    assert {request.path for request in server.traces} == {"/v1/traces"}
    assert server.starts == []
    assert {request.path for request in server.others} <= set[str]()
    for request in server.traces:
        parsed = ExportTraceServiceRequest.FromString(request.body)
        for group in parsed.resource_spans:
            holders: list[Any] = [group.resource]
            for scoped in group.scope_spans:
                assert (scoped.scope.name, list(scoped.scope.attributes)) == ("loopscope.genai", [])
                for span in scoped.spans:
                    holders += [span, *span.events, *span.links]
                    assert not [event.name for event in span.events if event.name.startswith("loopscope.")]
            for holder in holders:
                for item in holder.attributes:
                    assert not item.key.startswith("loopscope."), item.key
                    assert not item.value.HasField("bytes_value"), item.key
    return server.spans()


def text(words: str) -> dict[str, str]:
    return {"type": "text", "content": words}


def test_text_tools_thinking_and_images_field_by_field(
    foreign: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    foreign.replies = [Reply(body=json.dumps(message(content=ANSWER, stop_reason="tool_use")).encode())]
    configure(user_id="u", environment="test")
    with loopscope.run("seer", input={"of": "cats"}):
        client.messages.create(
            model="claude-sonnet-4-6", max_tokens=99, system="Be brief.", tools=[TOOL], messages=CONVERSATION
        )
    delivered()
    spans = assert_standard(foreign)
    chat = next(span for span in spans if span.operation == "chat")
    parent = next(span for span in spans if span.operation == "invoke_agent")
    assert chat.span.parent_span_id == parent.span.span_id
    assert chat.span.trace_id == parent.span.trace_id
    assert (chat.span.name, chat.span.kind) == ("chat claude-sonnet-4-6", Span.SPAN_KIND_CLIENT)
    content = {
        name: json.loads(chat.attributes.pop(name))
        for name in (at.INPUT_MESSAGES, at.OUTPUT_MESSAGES, at.SYSTEM_INSTRUCTIONS, at.TOOL_DEFINITIONS)
    }
    assert content == {
        at.SYSTEM_INSTRUCTIONS: [text("Be brief.")],
        at.TOOL_DEFINITIONS: [
            {
                "type": "function",
                "name": "look",
                "description": "Looks",
                "parameters": {"type": "object", "properties": {"at": {}}},
            }
        ],
        at.INPUT_MESSAGES: [
            {
                "role": "user",
                "parts": [
                    text("What is this?"),
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "content": PNG},
                    {"type": "uri", "modality": "image", "uri": "https://pictures.example/1.png"},
                    {"type": "file", "modality": "document", "file_id": "file_1"},
                ],
            },
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "Let me look."},
                    {"type": "tool_call", "id": "toolu_0", "name": "look", "arguments": {"at": "ünïcode", "n": 2**60}},
                ],
            },
            {
                "role": "tool",
                "parts": [{"type": "tool_call_response", "id": "toolu_0", "response": [text("a cat")]}],
            },
            {"role": "assistant", "parts": [text("A cat.")]},
            {"role": "user", "parts": [text("And now?")]},
        ],
        at.OUTPUT_MESSAGES: [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "Search."},
                    {
                        "type": "server_tool_call",
                        "id": "srvtoolu_1",
                        "name": "web_search",
                        "server_tool_call": {"type": "web_search", "arguments": {"query": "cat"}},
                    },
                    {
                        "type": "server_tool_call_response",
                        "id": "srvtoolu_1",
                        "server_tool_call_response": {"type": "web_search", "content": [{"type": "web_search_result"}]},
                    },
                    text("Looking."),
                    {"type": "tool_call", "id": "toolu_1", "name": "look", "arguments": {"at": "door"}},
                ],
                "finish_reason": "tool_call",
            }
        ],
    }
    port = int(foreign.url.rpartition(":")[2])
    assert chat.attributes == {
        at.OPERATION_NAME: "chat",
        at.PROVIDER_NAME: "anthropic",
        at.AGENT_NAME: "seer",
        at.USER_ID: "u",
        at.REQUEST_MODEL: "claude-sonnet-4-6",
        at.REQUEST_MAX_TOKENS: 99,
        at.RESPONSE_ID: "msg_01test",
        at.RESPONSE_MODEL: "claude-sonnet-4-6",
        at.RESPONSE_FINISH_REASONS: ["tool_call"],
        at.USAGE_INPUT_TOKENS: 2121,
        at.USAGE_OUTPUT_TOKENS: 42,
        at.USAGE_CACHE_READ_TOKENS: 1800,
        at.USAGE_CACHE_WRITE_TOKENS: 300,
        at.HTTP_STATUS_CODE: 200,
        at.SERVER_ADDRESS: "127.0.0.1",
        at.SERVER_PORT: port,
    }
    assert json.loads(parent[at.INPUT_MESSAGES]) == [{"role": "user", "parts": [text('{"of":"cats"}')]}]
    assert chat.resource[at.DEPLOYMENT_ENVIRONMENT] == "test"
    assert chat.resource[at.SERVICE_NAME] == "tester"


def test_a_tool_call_and_a_stream(foreign: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    foreign.replies = [Reply(events=stream_events())]
    configure()

    @loopscope.tool
    def look(at_: str) -> str:
        return f"at {at_}"

    with loopscope.run("seer"):
        with client.messages.stream(**ask()) as stream:
            stream.until_done()
        look("the door")
    delivered()
    spans = {span.operation: span for span in assert_standard(foreign)}
    chat = spans["chat"]
    (answer,) = json.loads(chat[at.OUTPUT_MESSAGES])
    assert [part["type"] for part in answer["parts"]] == ["text", "tool_call"]
    assert answer["parts"][0]["content"] == "Hello wörld"
    assert answer["finish_reason"] == "tool_call"
    assert chat[at.REQUEST_STREAM] is True
    assert chat[at.RESPONSE_TTFT] > 0
    tool = spans["execute_tool"]
    assert tool[at.TOOL_NAME] == "look"
    assert json.loads(tool[at.TOOL_CALL_RESULT]) == "at the door"
    assert tool.span.kind == Span.SPAN_KIND_INTERNAL


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 500, 501])
def test_any_answer_but_the_identity_is_another_backend(
    status: int, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.answer_identity = lambda _: (status, IDENTITY)
    configure()
    with loopscope.run("r"):
        client.messages.create(**ask())
    delivered()
    assert len(assert_standard(server)) == 2


@pytest.mark.parametrize("body", [b"", b"<html>ok</html>", b"[]", b'{"product": "other"}', b"\xff"])
def test_two_hundred_with_something_else_is_another_backend(
    body: bytes, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.answer_identity = lambda _: (200, body)
    configure()
    client.messages.create(**ask())
    delivered()
    assert_standard(server)


def test_nothing_is_sent_before_it_is_known_who_is_there(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    """A busy proxy says nothing about what is behind it: spans wait, and go out as what they should be."""
    statuses = [503, 429, 502]
    server.answer_identity = lambda _: (statuses.pop(0), b"") if statuses else (200, IDENTITY)
    configure()
    client.messages.create(**ask())
    server.wait_for(lambda: bool(server.traces), "the call")
    delivered()
    assert len(server.asked) == 4
    (call,) = server.calls()
    assert call[at.REQUEST_BODY] == server.messages[0].body


def test_the_question_carries_no_content_and_no_more_than_one_is_asked(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure(api_key="the-key")
    for number in range(3):
        client.messages.create(**ask(f"call {number}"))
        delivered()
    assert [request.path for request in server.asked] == [IDENTITY_PATH]
    assert server.asked[0].headers["authorization"] == "Bearer the-key"
    assert set(server.asked[0].headers) <= {"host", "accept-encoding", "user-agent", "authorization"}


def test_a_collector_that_another_backend_replaced_gets_nothing_of_ours_there(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    """At the same address, between two calls: the first connection is gone, so it is asked again."""
    configure()
    client.messages.create(**ask("first"))
    delivered()
    port = int(server.url.rpartition(":")[2])
    server.drop_connections()
    server.stop()
    late = Server(port)
    late.answer_identity = lambda _: (404, b"")
    late.start()
    try:
        client.messages.create(**ask("second"))
        delivered()
        (span,) = assert_standard(late)
        assert json.loads(span[at.INPUT_MESSAGES])[0]["parts"][0]["content"] == "second"
    finally:
        late.stop()
        server.restart()


def test_another_backend_is_asked_again_after_a_while(
    foreign: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "FOREIGN_ASKED_AGAIN_SECONDS", 0.0)
    configure()
    client.messages.create(**ask("first"))
    delivered()
    foreign.answer_identity = lambda _: (200, IDENTITY)
    foreign.drop_connections()
    client.messages.create(**ask("second"))
    delivered()
    first, second = foreign.calls()
    assert at.REQUEST_BODY not in first.attributes
    assert second[at.REQUEST_BODY] == foreign.messages[1].body


def test_its_owner_may_say_whose_it_is(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(backend="otlp")
    client.messages.create(**ask())
    delivered()
    assert_standard(server)
    server.traces.clear()
    server.answer_identity = lambda _: (404, b"")
    configure(backend="loopscope")
    client.messages.create(**ask())
    delivered()
    assert server.calls()[0][at.REQUEST_BODY] == server.messages[1].body
    assert server.asked == []


def test_no_content_where_the_conventions_switch_says_so(
    foreign: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "NO_CONTENT")
    configure()

    @loopscope.tool
    def fails(word: str) -> str:
        raise ValueError(f"the {word} is wrong")

    with loopscope.run("r", input="secret words"):
        client.messages.create(**ask("secret words"))
        with pytest.raises(ValueError, match="secret"):
            fails("secret")
    delivered()
    spans = assert_standard(foreign)
    assert len(spans) == 3
    assert all(b"secret" not in request.body for request in foreign.traces)
    assert next(s for s in spans if s.operation == "execute_tool")[at.ERROR_TYPE] == "ValueError"


def test_without_captured_content_there_is_none(
    foreign: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure(capture_content=False)
    client.messages.create(**ask("secret words"))
    delivered()
    (span,) = assert_standard(foreign)
    assert at.INPUT_MESSAGES not in span.attributes
    assert span[at.USAGE_INPUT_TOKENS] == 2121


def test_the_spool_keeps_what_our_collector_would_get(
    foreign: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    foreign.answer_traces = lambda _: (400, {})
    configure()
    client.messages.create(**ask("kept whole"))
    assert not loopscope.flush(60)
    (kept,) = tmp_path.rglob("rejected/*.spool")
    assert at.REQUEST_BODY.encode() in kept.read_bytes()


def recorded(attributes: dict[str, Any], *, parent: int = 7, name: str = "span") -> bytes:
    start = recording.Start(1, 2, parent, recording.INTERNAL, name, 1_000, attributes)
    return encoding.marker(start)


def test_a_run_that_nobody_declared_is_not_sent_and_its_children_stand_alone() -> None:
    inferred = {at.RUN_INFERRED: True, at.RUN_ID: "r"}
    assert standard_span(recorded({at.OPERATION_NAME: "invoke_agent", **inferred}), content=True) is None
    for operation in ("chat", "execute_tool"):
        child = standard_span(recorded({at.OPERATION_NAME: operation, **inferred}), content=True)
        assert child is not None
        assert child.parent_span_id == b""
        assert [item.key for item in child.attributes] == [at.OPERATION_NAME]
    declared = standard_span(recorded({at.OPERATION_NAME: "chat", at.RUN_ID: "r"}), content=True)
    assert declared is not None
    assert declared.parent_span_id == (7).to_bytes(8, "big")


def test_a_span_of_an_operation_of_our_own_is_a_plain_span() -> None:
    step = standard_span(recorded({at.OPERATION_NAME: "step", at.STEP_NAME: "s"}, name="step s"), content=True)
    assert step is not None
    assert (step.name, list(step.attributes)) == ("step s", [])


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "redacted_thinking", "data": "x"}, {"type": "redacted_thinking", "data": "x"}),
        ({"type": "new_kind", "value": 1, "loopscope_deltas": [1]}, {"type": "new_kind", "value": 1}),
        ({"type": "compaction", "content": "short"}, {"type": "compaction", "content": "short"}),
        ({"text": "no type"}, {"type": "unknown", "text": "no type"}),
        (
            {"type": "tool_use", "id": "t", "name": "n", "input": {}, "partial_json": '{"a'},
            {"type": "tool_call", "id": "t", "name": "n", "arguments": '{"a'},
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True},
            {"type": "tool_call_response", "id": "t", "response": "no", "is_error": True},
        ),
        (
            {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {"a": 1}},
            {
                "type": "server_tool_call",
                "id": "m",
                "name": "n",
                "server_tool_call": {"type": "mcp", "server_name": "s", "arguments": {"a": 1}},
            },
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            {"type": "text", "content": "words"},
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
            {"type": "text", "content": "inner"},
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
            {"type": "blob", "modality": "document", "mime_type": "application/pdf", "content": "JVBE"},
        ),
    ],
)
def test_blocks_of_every_kind(block: dict[str, Any], part: dict[str, Any]) -> None:
    assert genai_messages.parts_of([block]) == [part]


@pytest.mark.parametrize("broken", [None, 7, "text", [], [1], {"messages": 3}, {"messages": [None, {"content": 4}]}])
def test_what_is_no_request_gives_no_message_and_no_error(broken: Any) -> None:
    body = broken if isinstance(broken, dict) else {"messages": broken, "system": broken, "tools": broken}
    for found in (
        genai_messages.input_messages(body),
        genai_messages.system_instructions(body),
        genai_messages.tool_definitions(body),
        genai_messages.output_messages({"type": "error", "error": {"message": "no"}}),
    ):
        assert all(isinstance(item, dict) for item in found)


# --- the standard variables ---


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch, foreign: Server, tmp_path: Path) -> Callable[..., None]:
    """Configure by OTEL_* variables alone; keywords are the ends of their names."""

    def set_and_configure(**variables: str) -> None:
        monkeypatch.setenv("LOOPSCOPE_SPOOL_DIR", str(tmp_path / "spool"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", foreign.url)
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        loopscope.configure(agent="tester")

    return set_and_configure


def test_headers_and_compression(otel: Callable[..., None], foreign: Server, client: anthropic.Anthropic) -> None:
    foreign.gunzip = True
    otel(HEADERS="x-team=a%20b,authorization=Basic%20dTpw", COMPRESSION="gzip")
    client.messages.create(**ask())
    delivered()
    (request,) = foreign.traces
    assert request.headers["content-encoding"] == "gzip"
    assert (request.headers["x-team"], request.headers["authorization"]) == ("a b", "Basic dTpw")
    assert len(assert_standard(foreign)) == 1


def test_json(otel: Callable[..., None], foreign: Server, client: anthropic.Anthropic) -> None:
    otel(PROTOCOL="http/json")
    client.messages.create(**ask("ünïcode"))
    foreign.wait_for(lambda: bool(foreign.traces), "the request")
    (request,) = foreign.traces
    assert request.headers["content-type"] == "application/json"
    (group,) = json.loads(request.body)["resourceSpans"]
    (span,) = group["scopeSpans"][0]["spans"]
    assert (len(span["traceId"]), len(span["spanId"]), span["kind"]) == (32, 16, 3)
    int(span["traceId"], 16)
    attributes = {item["key"]: item["value"] for item in span["attributes"]}
    (asked,) = json.loads(attributes[at.INPUT_MESSAGES]["stringValue"])
    assert asked["parts"] == [{"type": "text", "content": "ünïcode"}]
    assert not [key for key in attributes if key.startswith("loopscope.")]


@pytest.fixture
def grpc_sink() -> Iterator[tuple[str, list[ExportTraceServiceRequest], dict[str, str]]]:
    """A TraceService on a free port: its URL, what it received, and the last call's metadata."""
    grpc: Any = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    received: list[ExportTraceServiceRequest] = []
    metadata: dict[str, str] = {}

    def export(request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        received.append(request)
        metadata.update(dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", received, metadata
    server.stop(None).wait()


def test_grpc(
    grpc_sink: tuple[str, list[ExportTraceServiceRequest], dict[str, str]],
    otel: Callable[..., None],
    client: anthropic.Anthropic,
) -> None:
    url, received, metadata = grpc_sink
    otel(PROTOCOL="grpc", TRACES_ENDPOINT=url, HEADERS="x-api-key=k")
    client.messages.create(**ask())
    delivered()
    (request,) = received
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert metadata["x-api-key"] == "k"
    keys = {item.key for item in (*span.attributes, *request.resource_spans[0].resource.attributes)}
    assert at.INPUT_MESSAGES in keys
    assert not [key for key in keys if key.startswith("loopscope.")]


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority, and a server's and a client's certificate of it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    new = ("req", "-nodes", "-newkey", "rsa:2048")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        run(
            *("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem"),
        )
    return tmp_path


def test_certificates(
    certificates: Path, otel: Callable[..., None], client: anthropic.Anthropic, caplog: pytest.LogCaptureFixture
) -> None:
    """A server of a private authority that wants to see a certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with running_server(context) as secure:
        secure.answer_identity = lambda _: (404, b"")
        endpoint = {"TRACES_ENDPOINT": f"{secure.url}/v1/traces", "CERTIFICATE": str(certificates / "ca.pem")}
        otel(**endpoint)
        client.messages.create(**ask("without a certificate"))
        assert not loopscope.flush(2)
        assert "they wait in the spool" in caplog.text
        otel(
            **endpoint,
            CLIENT_CERTIFICATE=str(certificates / "client.pem"),
            CLIENT_KEY=str(certificates / "client.key"),
        )
        client.messages.create(**ask("with a certificate"))
        secure.wait_for(lambda: len(secure.spans()) >= 1, "the call")
        assert b"with a certificate" in b"".join(request.body for request in secure.traces)
        assert_standard(secure)


def test_grpc_that_nobody_answers_waits(otel: Callable[..., None], client: anthropic.Anthropic) -> None:
    pytest.importorskip("grpc")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    otel(PROTOCOL="grpc", TRACES_ENDPOINT=f"http://127.0.0.1:{port}")
    client.messages.create(**ask())
    assert not loopscope.flush(1.0)
    # The call, and its run when that was found to have ended by now.
    assert loopscope.stats()["spool_spans"] in (1, 2)
    assert loopscope.stats()["spans_delivered"] == 0


def test_disabled_by_the_standard_variable(
    otel: Callable[..., None], foreign: Server, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    otel()
    client.messages.create(**ask())
    assert loopscope.flush(5)
    assert (foreign.traces, foreign.asked) == ([], [])


def test_loopscopes_own_variable_may_point_to_another_backend(
    foreign: Server, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with running_server() as unused:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", unused.url)
        monkeypatch.setenv("LOOPSCOPE_ENDPOINT", foreign.url)
        loopscope.configure(agent="tester", spool_dir=tmp_path / "spool")
        client.messages.create(**ask())
        delivered()
        assert len(assert_standard(foreign)) == 1
        assert (unused.traces, unused.asked) == ([], [])
