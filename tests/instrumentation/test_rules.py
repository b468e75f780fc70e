"""Rules of the user and personal data: found as the model reads the text, nothing else changed, JSON stays JSON."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopscope
from loopscope._internal.config import resolve
from loopscope._internal.patterns import MAX_REPEAT, PatternError, bounded, safe_pattern
from loopscope._internal.pii import FORMS, IBAN_LENGTHS, iban_checks, luhn
from loopscope._internal.redaction import Scrubber
from loopscope._internal.rule_search import RuleSet
from loopscope._internal.rules import RedactionRule

from .conftest import Configure, ask, delivered
from .provider_server import Server, ok

CUSTOMER = {"customer": r"CUST-\d{4,10}"}
ALL_PII = tuple(FORMS)


def scrubber(rules: dict[str, str] | None = None, pii: tuple[str, ...] = (), *, credentials: bool = True) -> Scrubber:
    made = [RedactionRule(name, pattern) for name, pattern in (rules or {}).items()]
    return Scrubber(credentials=credentials, rules=RuleSet(made, pii))


# --- patterns ---

REFUSED = {
    "(a+)+b": "very long",
    r"(\w+\s?)+x": "very long",
    "(a|aa)+b": "very long",
    "(?:a{1,30}){1,30}b": "very long",
    r"\w+\w+\w+x": "very long",
    r"(.*?,){11}P": "very long",
    r"(?i)(A|aa)+b": "very long",
    "[а-я]+[ж]+[б-в]+x": "very long",
    "(?:[a-z]{1,200}-){1,2000}": "characters",
    "x?": "empty text",
    "": "expected a regular expression",
    "(": "no regular expression",
    "(?x) a b": "VERBOSE",
    r"(a)?(?(1)b|c)": "not supported",
    r"redacted:\w+": "stands for what it",
    "[a-z]{3,}": "stands for what it",
}


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_that_cannot_be_used_is_refused_by_the_rules_name(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(loopscope.ConfigurationError, match=r"rule 'mine'") as raised:
        loopscope.configure(redact_rules={"mine": pattern}, spool_dir=tmp_path)
    assert REFUSED[pattern] in str(raised.value)


ACCEPTED = [
    r"CUST-\d+",
    r"(?:[a-z]+\.)+example",
    r"(?:\d[ -]?){13,19}(?!\d)",
    r"[^@\s]+@[^@\s]+\.[a-z]+",
    r"(?i)\bproject (?:falcon|heron|owl)\b",
    r"(?:\d{1,3}\.){3}\d{1,3}",
    r"Secret: .*",
    r"\s*,\s*secret",
    r"(?P<a>x)-(?P=a)",
    r"x++y*+z?+",
    r"[]a]{2,}?b",
]


@pytest.mark.parametrize("pattern", ACCEPTED)
def test_an_ordinary_pattern_is_accepted(pattern: str) -> None:
    safe_pattern(pattern)


def test_open_repetitions_are_bounded_and_nothing_else_changes() -> None:
    assert bounded(r"a+[+*]\+(?:b*?)c{3,}d{2,3}+e{,4}f?(?P<n>g){,}") == (
        rf"a{{1,{MAX_REPEAT}}}[+*]\+(?:b{{0,{MAX_REPEAT}}}?)c{{3,{MAX_REPEAT}}}d{{2,3}}+e{{,4}}f?(?P<n>g){{0,{MAX_REPEAT}}}"
    )


pattern_texts = st.lists(
    st.sampled_from(["a", "b", "[ab]", r"\d", "(?:ab)", "(?:a|b)", "(a)", ".", r"\w", " "]).flatmap(
        lambda atom: st.sampled_from([atom, atom + "+", atom + "*", atom + "?", atom + "{2,3}", atom + "{1,}?"])
    ),
    min_size=1,
    max_size=4,
).map("".join)


@given(pattern_texts, st.text("ab1 \n", max_size=30))
def test_a_bounded_pattern_matches_what_the_given_one_does(pattern: str, text: str) -> None:
    try:
        made, longest = safe_pattern(pattern)
    except PatternError:
        return
    expected, found = re.search(pattern, text), made.search(text)
    assert (expected and expected.span()) == (found and found.span())
    assert found is None or len(found[0]) <= longest


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "ü", "a" * 65, "-a", 7])
def test_a_name_that_could_break_json_is_refused(name: Any) -> None:
    with pytest.raises(loopscope.ConfigurationError, match="redaction rule"):
        loopscope.RedactionRule(name, "x-y")


# --- rules on JSON ---

strings = st.text() | st.sampled_from(["CUST-1234", "x CUST-99999\n", "éCUST-12345é", "\\CUST-12345"])
documents = st.recursive(
    strings | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(documents, st.booleans())
def test_of_json_exactly_the_matches_change(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    clean, found = scrubber(CUSTOMER).scrub(body)
    expected = re.sub(r"CUST-[0-9]{4,10}", "[redacted:customer]", json.dumps(value))
    assert json.loads(clean.decode("utf-8", "surrogatepass")) == json.loads(expected)
    assert found == expected.count("[redacted:customer]")
    assert found or clean is body


@given(
    st.text(max_size=80),
    st.sampled_from([r"[0-9]{2,}", r"\s+", "é|ü", r"[^\W\d]{2}", '"', r"\\", "[\u4e2d\U0001f600]"]),
)
def test_the_output_holds_no_match_and_is_json(text: str, pattern: str) -> None:
    body = json.dumps({"a": text, "b": [text, 1234]}).encode()
    try:
        made = scrubber({"r-1": pattern}, credentials=False)
    except loopscope.ConfigurationError:
        return
    clean, _ = made.scrub(body)
    if "\\" in text:
        json.loads(clean)  # what looks like an escape of JSON inside JSON stays whole
        return
    number = "[redacted:r-1]" if re.search(pattern, "1234") else 1234
    expected = re.sub(pattern, "[redacted:r-1]", text)
    assert json.loads(clean) == {"a": expected, "b": [expected, number]}


@pytest.mark.parametrize("before", ["\n", "\t", "é", "\u2028", '"', "/", "\\", "中", "😀", "\x00"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_match_at_an_escape(before: str, ascii_only: bool) -> None:
    text = f"a{before}CUST-12345{before}b"
    body = json.dumps({"t": text}, ensure_ascii=ascii_only).replace("/", "\\/").encode()
    clean, found = scrubber(CUSTOMER).scrub(body)
    assert (json.loads(clean)["t"], found) == (f"a{before}[redacted:customer]{before}b", 1)


def test_a_match_of_escaped_characters_is_replaced_as_a_whole() -> None:
    body = json.dumps({"t": "x Zoë Müller😀 y"}).encode()
    clean, _ = scrubber({"person": r"Zo\w Müller."}).scrub(body)
    assert json.loads(clean) == {"t": "x [redacted:person] y"}


def test_json_inside_json_stays_json() -> None:
    inner = json.dumps({"to": "a\nbob@example.com\u00e9", "n": "\u00e9bob@example.com\t"})
    clean, found = scrubber(pii=("email",)).scrub(json.dumps({"result": inner}).encode())
    assert found == 2
    assert json.loads(json.loads(clean)["result"])["to"].startswith("a\n[redacted:email]")


@pytest.mark.parametrize("number", ["4111111111111111", "-12.5", "1e400", "1234567890123456789012"])
def test_a_number_becomes_a_string_or_stays(number: str) -> None:
    body = f'{{"card":{number}, "next":[{number}]}}'.encode()
    clean, found = scrubber(pii=("credit_card",)).scrub(body)
    if number == "4111111111111111":
        assert (json.loads(clean), found) == ({"card": "[redacted:credit_card]", "next": ["[redacted:credit_card]"]}, 2)
    else:
        assert (clean is body, found) == (True, 0)


@pytest.mark.parametrize("tail", ["", '"', '","b":', "<"])
def test_what_is_no_json_or_broke_off_is_searched_too(tail: str) -> None:
    for text in (f'{{"a":"CUST-12345{tail}', f"<p title='x'>CUST-12345 {tail}", f"plain CUST-12345{tail}"):
        clean, found = scrubber(CUSTOMER).scrub(text.encode())
        assert (clean.decode(), found) == (text.replace("CUST-12345", "[redacted:customer]"), 1)


def test_bytes_that_are_no_utf8_are_searched_too() -> None:
    clean, found = scrubber(CUSTOMER).scrub(b'{"a":"\xff\xfe CUST-12345 \xff"}')
    assert (clean, found) == (b'{"a":"\xff\xfe [redacted:customer] \xff"}', 1)


def test_images_stay() -> None:
    image = base64.b64encode(os.urandom(300_000)).decode()
    body = json.dumps({"data": [image, f"data:image/png;base64,{image}"]}).encode()
    clean, found = scrubber({"two": "[A-Z]{2}"}, ALL_PII).scrub(body)
    assert (found, clean is body) == (0, True)


def test_a_rule_and_a_credential_that_overlap_leave_nothing_of_either() -> None:
    secret = "sk-" + "ant-api03-" + "Ab3" * 20
    clean, found = scrubber({"tail": "Ab3Ab3!!"}).scrub(json.dumps({"t": f"x {secret}!! y"}).encode())
    assert (json.loads(clean)["t"], found) == ("x [redacted:anthropic-api-key][redacted:tail] y", 2)


turns = st.lists(
    st.text(max_size=20) | st.sampled_from(["CUST-12345", "bob@example.com", "a\\", '"', "CUST-"]), max_size=5
)


@given(st.lists(turns, min_size=1, max_size=6), st.data())
def test_a_growing_history_is_scrubbed_as_if_new(given_turns: list[list[str]], data: st.DataObject) -> None:
    growing = scrubber(CUSTOMER, ALL_PII)
    history: list[Any] = []
    for turn in given_turns:
        history += [*turn, len(turn) * 1111]
        if data.draw(st.booleans()):
            history = history[: data.draw(st.integers(0, len(history)))]
        body = json.dumps({"messages": history, "filler": ["x" * 900] * 30, "end": turn}).encode()
        if data.draw(st.booleans()):
            body = body[: data.draw(st.integers(0, len(body)))]
        assert growing.scrub_history(body, "run") == scrubber(CUSTOMER, ALL_PII).scrub(body)


# --- personal data ---

FOUND = {
    "email": ["bob@example.com", "a.b+c@mail.example.co.uk", "jürgen@müller.de", "x_1@a-b.io"],
    "phone": ["+49 30 901820", "+1 (212) 555-0123", "+442071838750", "(212) 555-0123", "212-555-0123", "212.555.0123"],
    "iban": ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "NO9386011117947"],
    "credit_card": ["4111111111111111", "4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005"],
    "ssn": ["123-45-6789"],
    "ip": ["192.168.1.17", "8.8.8.8", "2001:db8::8a2e:370:7334", "fe80::1", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"],
}
NOT_FOUND = {
    "email": ["@decorator", "a@b", "x @ y.z", "user@localhost"],
    "phone": ["1-800", "2026-11-24", "+12", "12345678901", "1 + 2345678 = x1", "4711-4712"],
    "iban": ["DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300", "AB12CDEF34567890"],
    "credit_card": ["4111111111111112", "1700000000000", "0000000000000000", "4111.1111", "a4111111111111111"],
    "ssn": ["000-12-3456", "666-12-3456", "123-00-4567", "123-45-67890", "1-123-45-6789"],
    "ip": ["999.1.1.1", "1.2.3", "12:30:45", "std::string", "abc::def", "1.2.3.4.5", "::1"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
@pytest.mark.parametrize("around", ["{}", "a\n{}\nb", "({})", '"{}"', "is {}, or", "é {}\u2028", "x: {}."])
def test_personal_data_is_found(kind: str, text: str, around: str) -> None:
    body = json.dumps({"t": around.format(text)}).encode()
    clean, found = scrubber(pii=(kind,)).scrub(body)
    assert (json.loads(clean)["t"], found) == (around.format(f"[redacted:{kind}]"), 1)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in NOT_FOUND.items() for text in texts])
def test_what_only_looks_like_it_stays(kind: str, text: str) -> None:
    body = json.dumps({"t": f"see {text} here"}).encode()
    assert scrubber(pii=(kind,)).scrub(body) == (body, 0)


def test_every_kind_is_tested_and_documented() -> None:
    assert set(FOUND) == set(NOT_FOUND) == set(FORMS)
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for kind in FORMS:
        assert f"| `{kind}` |" in page


@given(st.text("0123456789", min_size=1, max_size=18))
def test_luhn_by_its_definition(digits: str) -> None:
    assert sum(luhn(digits + str(check)) for check in range(10)) == 1


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.data())
def test_every_iban_with_right_check_digits_is_found_and_no_other(country: str, data: st.DataObject) -> None:
    size = IBAN_LENGTHS[country] - 4
    account = data.draw(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=size, max_size=size))
    right = [f"{check:02}" for check in range(2, 99) if iban_checks(f"{country}{check:02}{account}")]
    assert len(right) == 1
    for check in ("02", "50", *right):
        text = f"pay {country}{check}{account} now"
        assert scrubber(pii=("iban",)).scrub(json.dumps(text).encode())[1] == (check in right)


@given(st.text(max_size=60))
def test_a_second_time_finds_nothing(text: str) -> None:
    made = scrubber(CUSTOMER, ALL_PII)
    clean, _ = made.scrub(json.dumps(text + " bob@example.com +49 30 901820 CUST-12345 4111111111111111").encode())
    again, found = made.scrub(clean)
    assert (again, found) == (clean, 0)


# --- configuration, and over the wire ---


def config(tmp_path: Path, environ: dict[str, str], **arguments: Any) -> Any:
    return resolve(arguments, {"LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"), **environ})


def test_rules_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[rules]\ncustomer = 'CUST-\\d+'\n")
    for value in (f"@{tmp_path}/rules.toml", f"{tmp_path}/rules.toml"):
        made = config(tmp_path, {"LOOPSCOPE_REDACT_RULES": value})
        assert made.redact_rules == (RedactionRule("customer", r"CUST-\d+"),)
        assert made.capture.default == "full"


@pytest.mark.parametrize("content", [None, "rules", "[rule]\na = 'b'", "[rules]\na = 1", "[rules]\na = '(x+)+y'"])
def test_with_a_file_that_cannot_be_used_no_text_is_recorded(
    content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        (tmp_path / "rules.toml").write_text(content)
    made = config(tmp_path, {"LOOPSCOPE_REDACT_RULES": f"@{tmp_path}/rules.toml"}, capture={"a": "full"})
    assert (made.redact_rules, made.capture.of("a")) == ((), "metadata")
    assert "LOOPSCOPE_REDACT_RULES" in caplog.text


@pytest.mark.parametrize(
    ("value", "kinds"),
    [("email, iban", ("email", "iban")), ("true", ALL_PII), ("false", ()), ("emial", ALL_PII), ("", ())],
)
def test_personal_data_by_variable(value: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    assert config(tmp_path, {"LOOPSCOPE_REDACT_PII": value}).redact_pii == kinds


@pytest.mark.parametrize(
    "wrong",
    [
        {"redact_pii": "emial"},
        {"redact_pii": ["email", 3]},
        {"redact_pii": 7},
        {"redact_rules": "x"},
        {"redact_rules": [1]},
    ],
)
def test_what_cannot_be_used_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(loopscope.ConfigurationError, match=next(iter(wrong))):
        loopscope.configure(spool_dir=tmp_path, **wrong)


def test_everything_that_is_recorded_is_scrubbed(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    private = ["CUST-12345", "bob@example.com"]
    said = " and ".join(private)
    server.replies = [ok(f"you are {said}")]
    configure(
        redact=False,
        redact_rules=[loopscope.RedactionRule("customer", re.compile("cust-[0-9]+", re.IGNORECASE))],
        redact_pii=["email"],
    )

    @loopscope.tool
    def look(who: str) -> str:
        return f"found {who}"

    with loopscope.run("r", input=said, config={"who": said}, user_id="bob@example.com") as run:
        client.messages.create(**ask(f"I am {said}", system=said))
        look(said)
        run.final_answer = said
        run.event("note", said=said)
    with pytest.raises(ValueError, match="nobody"), loopscope.run("fails"):
        raise ValueError(f"nobody is {said}")
    delivered()
    for secret in map(str.encode, private):
        assert secret in server.messages[0].body
        assert not any(secret in request.body for request in server.traces + server.starts)
    (call,) = server.calls()
    assert call["loopscope.redactions"] == 7
    recorded = json.loads(call["loopscope.request.body"])
    assert recorded["system"] == "[redacted:customer] and [redacted:email]"
    assert call["user.id"] == "[redacted:email]"


def test_names_that_records_refer_to_stay(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(redact_rules={"word": r"tester|claude-\w+|\d{1,3}\.\d+\.\d+\.\d+", "hex": "[0-9a-f]{6}"})
    client.messages.create(**ask("tester"))
    delivered()
    (call,) = server.calls()
    assert call["gen_ai.agent.name"] == "tester"
    assert call["gen_ai.request.model"] == "claude-sonnet-4-6"
    assert call["server.address"] == "127.0.0.1"
    assert call["loopscope.run.id"] == call.span.trace_id.hex()
    assert b"[redacted:word]" in call["loopscope.request.body"]
