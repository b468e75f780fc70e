"""The server itself: addresses, keys, and an end that is clean."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import anthropic
import pytest

from loopscope.stub import StubServer

HELLO = {"role": "user", "content": "hello"}


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            StubServer(port=port)


def test_beyond_this_machine_only_with_a_key() -> None:
    with pytest.raises(ValueError, match="give it a key"):
        StubServer("0.0.0.0")


def test_with_a_key_everything_needs_it() -> None:
    with StubServer(key="right") as stub:
        for key, allowed in (("right", True), ("wrong", False)):
            with anthropic.Anthropic(base_url=stub.url, api_key=key) as client:
                try:
                    client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
                except anthropic.AuthenticationError:
                    assert not allowed
                else:
                    assert allowed
        for path, method in (("/stub/log", "GET"), ("/stub/log", "DELETE"), ("/stub/reset", "POST")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(stub.url + path, method=method), timeout=60)
            assert caught.value.code == 401
        assert len(stub.log.entries()) == 1


def test_stopping_twice_is_fine_and_the_log_stays() -> None:
    stub = StubServer().start()
    with anthropic.Anthropic(base_url=stub.url, api_key="k") as client:
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    stub.stop()
    stub.stop()
    assert len(stub.log.entries()) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_address_and_ends_with_zero(how: signal.Signals) -> None:
    ready = "functools.partial(print, flush=True)"
    code = f"import functools\nfrom loopscope.stub import serve\nserve(port=0, on_ready={ready})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/healthz", timeout=60) as response:
            assert response.status == 200
        process.send_signal(how)
        assert process.wait(60) == 0
