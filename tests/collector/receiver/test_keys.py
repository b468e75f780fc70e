"""Who may send and read: keys, loopback names, and nothing beyond loopback without keys."""

from importlib.metadata import version
from pathlib import Path

import pytest
from support.otlp import PROTOBUF, request_with
from support.receiver import Running, StartReceiver

from loopscope_collector.keys import KeysError, accepts, is_loopback, load_keys, names_loopback, require_keys
from loopscope_schemas.wire import IDENTITY_PATH, PRODUCT, WIRE_VERSION

GOOD = request_with("span").SerializeToString()
INGEST, READ = "ingest-key-0123456789", "read-key-0123456789"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {INGEST}"}, 200),
        ({"authorization": f"bearer  {INGEST}"}, 200),
        ({"x-api-key": INGEST}, 200),
        ({"x-api-key": INGEST[:-1]}, 401),
        ({"x-api-key": READ}, 401),
        ({"authorization": f"Basic {INGEST}"}, 401),
    ],
)
def test_with_keys_only_ingest_keys_send(start_receiver: StartReceiver, headers: dict[str, str], status: int) -> None:
    receiver = start_receiver(ingest_keys=["another-key-0123456789", INGEST], read_keys=[READ])
    answer = receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF | headers)
    assert answer.status_code == status
    assert receiver.kept_spans() == (["span"] if status == 200 else [])
    assert INGEST not in answer.text


@pytest.mark.parametrize(("key", "status"), [("", 401), (READ, 200), (INGEST, 200), ("wrong", 401)])
def test_with_keys_metrics_want_one_and_health_does_not(start_receiver: StartReceiver, key: str, status: int) -> None:
    receiver = start_receiver(ingest_keys=[INGEST], read_keys=[READ])
    assert receiver.client.get("/metrics", headers={"x-api-key": key}).status_code == status
    assert receiver.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:4318"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:4318"}, 200),
        ({"host": "agent.localhost"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:4318"}, 403),
        ({"host": "192.168.1.5"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8501"}, 200),
    ],
)
def test_without_keys_a_foreign_page_cannot_send(receiver: Running, headers: dict[str, str], status: int) -> None:
    answer = receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF | headers)
    assert answer.status_code == status
    assert receiver.client.get("/metrics", headers=headers).status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_with_keys_any_name_will_do(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(ingest_keys=[INGEST])
    headers = PROTOBUF | {"host": "collector.internal", "x-api-key": INGEST}
    assert receiver.client.post("/v1/traces", content=GOOD, headers=headers).status_code == 200


def test_keys_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# agents\nfirst-key\n\nsecond-key  # staging\nfirst-key\n")
    assert load_keys(f"@{file}", name="X") == ("first-key", "second-key")
    assert load_keys(" first-key , second-key,", name="X") == ("first-key", "second-key")
    assert load_keys("", name="X") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (",", "holds no key"),
        ("good,with blank", "key 2 of X"),
        ("ключ", "key 1 of X"),
        ("@/does/not/exist", "cannot be read"),
    ],
)
def test_unusable_keys_are_refused_without_showing_them(text: str, complaint: str) -> None:
    with pytest.raises(KeysError, match=complaint) as refusal:
        load_keys(text, name="X")
    assert "with blank" not in str(refusal.value)


def test_beyond_loopback_every_needed_list_must_hold_a_key() -> None:
    require_keys("127.0.0.1", {"A": ()})
    require_keys("0.0.0.0", {"A": ("key",)})
    with pytest.raises(KeysError, match=r"refusing to listen on 0\.0\.0\.0 without keys: set A and B"):
        require_keys("0.0.0.0", {"A": (), "B": ()})


def test_loopback_is_recognised() -> None:
    assert [host for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost") if not is_loopback(host)] == []
    assert [host for host in ("0.0.0.0", "::", "10.0.0.1", "", "example.com", "1") if is_loopback(host)] == []
    assert [host for host in ("localhost", "a.localhost:80", "[::1]:80") if not names_loopback(host)] == []
    assert not accepts(("key",), b"")


def test_anybody_on_this_machine_may_ask_who_listens_here(start_receiver: StartReceiver) -> None:
    """With or without a key, right or wrong: whoever sends learns that this is its collector before it sends."""
    receiver = start_receiver(ingest_keys=[INGEST])
    for headers in ({}, {"x-api-key": INGEST}, {"x-api-key": "wrong"}):
        answer = receiver.client.get(IDENTITY_PATH, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"product": PRODUCT, "version": version("loopscope"), "wire": WIRE_VERSION}
    assert receiver.client.post(IDENTITY_PATH).status_code == 405
    # Without keys a web page must not find the collector under a name of its own.
    assert start_receiver().client.get(IDENTITY_PATH, headers={"host": "evil.example"}).status_code == 403
