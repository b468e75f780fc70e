"""Credentials: found wherever they stand, nothing else changed, JSON stays JSON."""

import base64
import json
import os
import random
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopscope
from loopscope._internal.credentials import FORMS
from loopscope._internal.redaction import WINDOW_BYTES, Scrubber, common_prefix, find_credentials
from loopscope._internal.redaction import _disjoint as disjoint  # pyright: ignore[reportPrivateUsage] - the oracle's parts
from loopscope._internal.redaction import _search as search_everywhere  # pyright: ignore[reportPrivateUsage]

from .conftest import Configure, ask, delivered
from .provider_server import Server, ok


def scrub(data: bytes) -> tuple[bytes, int]:
    return Scrubber().scrub(data)


def made_up(length: int, alphabet: str = "ABCDEFGHJKMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789") -> str:
    """A credential's random part; made here so that no scanner takes this file for a leak."""
    chooser = random.Random(length)
    return "".join(chooser.choice(alphabet) for _ in range(length))


HEX = "0123456789abcdef"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_KEY_LINES = "\n".join(made_up(64) for _ in range(20))
SECRETS = {
    "anthropic-api-key": "sk-" + "ant-api03-" + made_up(93) + "AA",
    "openai-api-key": "sk-" + "proj-" + made_up(48),
    "aws-access-key-id": "AK" + "IA" + made_up(16, UPPER),
    "github-token": "gh" + "p_" + made_up(36),
    "gitlab-token": "gl" + "pat-" + made_up(20),
    "slack-token": "xo" + "xb-1234567890-" + made_up(24),
    "google-api-key": "AI" + "za" + made_up(35),
    "stripe-api-key": "sk" + "_live_" + made_up(24),
    "huggingface-token": "h" + "f_" + made_up(34),
    "npm-token": "np" + "m_" + made_up(36),
    "sendgrid-api-key": "S" + "G." + made_up(22) + "." + made_up(43),
    "jwt": "ey" + "J" + made_up(33) + ".ey" + "J" + made_up(80) + "." + made_up(43),
    "azure-client-secret": "ab~8" + "Q~" + made_up(34),
    "cloudflare-origin-ca-key": "v1" + ".0-" + made_up(24, HEX) + "-" + made_up(146, HEX),
    "databricks-token": "da" + "pi" + made_up(32, HEX),
    "digitalocean-token": "dop" + "_v1_" + made_up(64, HEX),
    "docker-token": "dckr" + "_pat_" + made_up(27),
    "google-client-secret": "GOC" + "SPX-" + made_up(28),
    "hashicorp-token": "hv" + "s." + made_up(95),
    "pulumi-token": "pu" + "l-" + made_up(40, HEX),
    "supabase-token": "sb" + "p_" + made_up(40, HEX),
    "groq-api-key": "gs" + "k_" + made_up(52),
    "replicate-token": "r" + "8_" + made_up(37),
    "xai-api-key": "xa" + "i-" + made_up(80),
    "perplexity-api-key": "pp" + "lx-" + made_up(48),
    "langfuse-secret-key": "sk-" + "lf-01234567-89ab-cdef-0123-456789abcdef",
    "langsmith-api-key": "lsv2" + "_pt_" + made_up(32, HEX) + "_" + made_up(10, HEX),
    "atlassian-token": "ATA" + "TT3" + made_up(180) + "=0A1B2C3D",
    "grafana-token": "gl" + "sa_" + made_up(32) + "_0a1B2c3D",
    "linear-api-key": "lin" + "_api_" + made_up(40),
    "new-relic-api-key": "NR" + "AK-" + made_up(27, UPPER),
    "postman-api-key": "PM" + "AK-" + made_up(24, HEX) + "-" + made_up(34, HEX),
    "sentry-token": "sn" + "tryu_" + made_up(64, HEX),
    "shopify-token": "sh" + "pat_" + made_up(32, HEX),
    "square-token": "sq" + "0atp-" + made_up(22),
    "square-secret": "sq" + "0csp-" + made_up(43),
    "private-key": f"-----BEGIN RSA PRIVATE KEY-----\n{_KEY_LINES}\n-----END RSA PRIVATE KEY-----",
}
CONTEXTS = {
    "bearer-token": ("Authorization: Bearer ", made_up(40), "\n"),
    "url-password": ("postgres://admin:", "p4ss,w0rd!" + made_up(4), "@db.example.com:5432/x"),
    "aws-secret-access-key": ("aws_secret_access_key = ", made_up(40), "\n"),
    "azure-account-key": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", made_up(86) + "==", ";E=1"),
    "azure-shared-access-key": ("SharedAccessKeyName=x;SharedAccessKey=", made_up(43) + "=", ";"),
    "azure-sas-signature": ("https://a.blob.core.windows.net/c?sp=r&sig=", made_up(43) + "%3D", "&x=1"),
    "telegram-bot-token": ("https://api.telegram.org/bot123456789:", "AA" + made_up(33), "/getMe"),
    "basic-auth": ("Authorization: Basic ", base64.b64encode(b"user:" + made_up(9).encode()).decode(), "\n"),
    "connection-password": ("Server=db;Uid=sa;Password=", "p4ss w0rd!", ";Encrypt=yes"),
    "slack-webhook": ("https://hooks.sla" + "ck.com/services/", f"T{made_up(8)}/B{made_up(9)}/{made_up(24)}", " "),
}
SURROUNDINGS = ["", " ", "\n", "\t", "é", "\u2028", '"', "=", "(", "key:", "\\", "\x00", "中"]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("before", SURROUNDINGS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_credential_in_json_is_replaced_and_nothing_else(kind: str, before: str, ascii_only: bool) -> None:
    text = f"left{' ' if before == '' else before}{{}}\nright"
    document = {"messages": [{"content": text.replace("{}", SECRETS[kind])}], "n": 1}
    clean, found = scrub(json.dumps(document, ensure_ascii=ascii_only).encode())
    assert found == 1
    assert json.loads(clean) == {"messages": [{"content": text.replace("{}", f"[redacted:{kind}]")}], "n": 1}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_credential_in_json_inside_json(kind: str) -> None:
    inner = json.dumps({"out": f"a\n{SECRETS[kind]}\nb"})
    clean, found = scrub(json.dumps({"result": inner}).encode())
    assert found == 1
    assert json.loads(json.loads(clean)["result"]) == {"out": f"a\n[redacted:{kind}]\nb"}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_credential_told_by_its_surroundings(kind: str) -> None:
    before, secret, after = CONTEXTS[kind]
    clean, found = scrub(json.dumps({"text": before + secret + after}).encode())
    assert found == 1
    assert json.loads(clean)["text"] == f"{before}[redacted:{kind}]{after}"
    again, found_again = scrub(clean)
    assert again is clean
    assert found_again == 0


HARMLESS = [
    "The task-oriented risk-based approach; ask-antonio; sk-learn and disk-anthology.",
    "sk-ant- is how the keys begin; sk-proj- too; AKIA and ghp_ and AIza and eyJ as well.",
    "see https://example.com:8080/@user and http://localhost:3000/a@b and mailto:a@b.c and ftp://host/",
    "the bearer of this letter, Bearer authentication, bearer tokens are opaque_strings_without_digits_in_them",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE----- and -----BEGIN PUBLIC KEY-----",
    "postgres://${USER}:${PASSWORD}@host and redis://user:{password}@host and http://u:<pw>@h",
    "xoxo, hugs; hf_hub; npm_config_registry; SG.1; pypi-AgE; whsec_; ya29.",
    "gsk_ r8_ xai- pplx- dapi and shpat_ begin keys; pul-request, dapi_client, key-value; ratio 1234:AABB; ?sig=none",
    "Authorization: Basic, basic auth; the form has ?name=&password= and ;Password=${SECRET}; and &password={{pw}}",
    "class BasicAuthorization: basic = 1; hvs.token; v1.0-beta; lin_api_url; NRAK-; PMAK-; Q~ and A1bQ~",
    "d41d8cd98f00b204e9800998ecf8427e 3f786850e387550fdab836ed7e6dc881de23001b",
]


def test_every_form_is_tested() -> None:
    told = {form.placeholder.decode()[len("[redacted:") : -1] for form in FORMS}
    untested = {"stripe-webhook-secret", "google-access-token", "pypi-token"}
    assert told - untested == set(SECRETS) | set(CONTEXTS)


def test_a_password_in_a_query_is_found() -> None:
    assert scrub(b'"jdbc:postgresql://h/d?user=a&password=hush;1&x=2"') == (
        b'"jdbc:postgresql://h/d?user=a&password=[redacted:url-password]&x=2"',
        1,
    )


@pytest.mark.parametrize("text", HARMLESS)
def test_prose_and_code_stay(text: str) -> None:
    body = json.dumps({"text": text}).encode()
    clean, found = scrub(body)
    assert (found, clean is body) == (0, True)


def test_images_stay() -> None:
    body = json.dumps({"data": [base64.b64encode(os.urandom(200_000)).decode() for _ in range(5)]}).encode()
    clean, found = scrub(body)
    assert (found, clean is body) == (0, True)


@given(st.recursive(st.text() | st.integers() | st.none(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)))
def test_json_without_credentials_stays_byte_for_byte(value: Any) -> None:
    body = json.dumps(value).encode()
    assert scrub(body) == (body, 0)


pieces = st.lists(st.sampled_from(list(SECRETS.values())) | st.text(max_size=30), max_size=8)


@given(
    st.lists(st.sampled_from([*SECRETS.values(), *map("".join, CONTEXTS.values())]) | st.text(max_size=30), max_size=8)
)
def test_looking_about_long_words_alone_misses_nothing(texts: list[str]) -> None:
    for data in (" ".join(texts).encode("utf-8", "surrogatepass"), json.dumps(texts).encode()):
        everything: list[Any] = []
        search_everywhere(FORMS, data, 0, len(data), everything)
        assert find_credentials(data) == disjoint(everything)


@given(pieces, st.booleans())
def test_json_with_credentials_stays_json(texts: list[str], ascii_only: bool) -> None:
    body = json.dumps({"a": " ".join(texts), "b": texts}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    clean, found = scrub(body)
    read = json.loads(clean.decode("utf-8", "surrogatepass"))
    assert len(read["b"]) == len(texts)
    for secret in SECRETS.values():
        assert secret not in read["a"]
    assert found >= sum(text in SECRETS.values() for text in texts)


@given(st.lists(pieces, min_size=1, max_size=6), st.data())
def test_a_growing_history_is_scrubbed_as_if_new(turns: list[list[str]], data: st.DataObject) -> None:
    scrubber = Scrubber()
    history: list[str] = []
    for turn in turns:
        history += turn
        if data.draw(st.booleans()):
            history = history[: data.draw(st.integers(0, len(history)))]
        body = json.dumps({"messages": history, "filler": "x" * 40_000, "end": turn}).encode()
        assert scrubber.scrub_history(body, "run") == scrub(body)


@pytest.mark.parametrize("kind", [*SECRETS, *CONTEXTS])
def test_a_credential_that_grows_into_a_history_is_found_wherever_it_was_cut(kind: str) -> None:
    text = SECRETS[kind] if kind in SECRETS else "".join(CONTEXTS[kind])
    whole = json.dumps({"key": json.dumps({"aws_secret_access_key": text}), "messages": ["x" * 40_000, text]}).encode()
    begin = whole.rindex(b"x", 0, whole.rindex(b",")) + 1
    for cut in {*range(begin, len(whole), 7), len(whole) - 3}:
        scrubber = Scrubber()
        scrubber.scrub_history(whole[:cut] + b'"]}', "run")
        assert scrubber.scrub_history(whole, "run") == scrub(whole)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), pieces), max_size=8))
def test_histories_under_several_keys_never_mix(calls: list[tuple[str, str, list[str]]]) -> None:
    scrubber = Scrubber()
    for first, second, texts in calls:
        body = json.dumps(["x" * 20_000, *texts]).encode()
        assert scrubber.scrub_history(body, first, second) == scrub(body)


def _naive(a: bytes, b: bytes) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_common_prefix(shared: bytes, a: bytes, b: bytes) -> None:
    assert common_prefix(shared + a, shared + b) == _naive(shared + a, shared + b)


@pytest.mark.parametrize("shift", range(-60, 10, 7))
def test_a_credential_across_two_windows_is_found(shift: int) -> None:
    body = b"x " * ((WINDOW_BYTES + shift) // 2) + SECRETS["github-token"].encode() + b" end"
    clean, found = scrub(body)
    assert found == 1
    assert clean.endswith(b"[redacted:github-token] end")


def test_everything_that_is_recorded_is_scrubbed(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    secret = SECRETS["anthropic-api-key"]
    server.replies = [ok(f"your key is {secret}")]
    configure()

    @loopscope.tool
    def leaks(key: str) -> str:
        return f"got {key}"

    with loopscope.run("r", input=secret, config={"key": secret}) as run:
        client.messages.create(**ask(f"my key is {secret}", system=secret))
        leaks(secret)
        run.final_answer = secret
        run.event("note", said=secret)
    with pytest.raises(ValueError, match="bad key"), loopscope.run("fails"):
        raise ValueError(f"bad key {secret}")
    delivered()
    assert secret.encode() in server.messages[0].body, "what the provider gets is not ours to change"
    assert not any(secret.encode() in request.body for request in server.traces + server.starts)
    (call,) = server.calls()
    assert call["loopscope.redactions"] == 3
    sent, recorded = json.loads(server.messages[0].body), json.loads(call["loopscope.request.body"])
    sent["messages"][0]["content"] = "my key is [redacted:anthropic-api-key]"
    sent["system"] = "[redacted:anthropic-api-key]"
    assert recorded == sent
    assert loopscope.stats()["redactions"] == 12


def test_redaction_can_be_switched_off(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(redact=False)
    client.messages.create(**ask(SECRETS["jwt"]))
    delivered()
    assert server.calls()[0]["loopscope.request.body"] == server.messages[0].body
