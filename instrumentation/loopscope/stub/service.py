"""The stand-in's mind: from one request to a plan for its answer. No network and no waiting here.

Holds the scripts, how far each session is, the prompt cache and the stored message threads. Called by the app, on its
event loop only; nothing in here is safe to call from two threads.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope.stub.answers import build_message, default_turn, make_id
from loopscope.stub.errors import ApiError, invalid
from loopscope.stub.script import Ask, Fault, Pacing, Script, Turn, fault_from_header, turn_of
from loopscope.stub.tokens import PromptCache, count_input
from loopscope.stub.validation import content_blocks, parse_request, validate_request

JsonDict = dict[str, Any]

SCRIPT_HEADER: Final = "x-stub-script"
"""Names the script of a request: `name` or `name/session`. Sessions of one script advance independently."""
FAULT_HEADER: Final = "x-stub-fault"
"""A fault for requests that carry it: `status=429;times=2;retry_after=1;after=7`."""
MARKER_START: Final = "[[stub:"
"""In a system prompt or a first message, `[[stub:name/session]]` names the script as the header does."""
USER_ID_PREFIX: Final = "stub:"
"""`metadata.user_id` of `stub:name/session` names the script too."""
MAX_SESSIONS: Final = 50_000
MAX_THREADS: Final = 2_000


@dataclass
class Session:
    """How far one session is."""

    step: int = 0
    attempt: int = 0
    fired: dict[int, int] = field(default_factory=dict[int, int])
    header_fired: int = 0


@dataclass
class Plan:
    """What to do with one request: refuse it (`error`), fail it (`fault`), or answer with `message`."""

    script: str | None = None
    session_name: str | None = None
    step: int | None = None
    stream: bool = False
    error: ApiError | None = None
    fault: Fault | None = None
    message: JsonDict | None = None
    pacing: Pacing = field(default_factory=Pacing)
    latency: float = 0.0
    session: Session | None = None

    def undo(self) -> None:
        """Take the step back: the client went away before it saw any of the answer."""
        if self.session is not None and self.step is not None and self.session.step == self.step + 1:
            self.session.step = self.step
            self.session = None


class Service:
    """See the module. `clock` gives seconds and drives only the expiry of the prompt cache."""

    def __init__(self, *, seed: int, latency_seconds: float, clock: Callable[[], float]) -> None:
        self._seed = seed
        self._latency = latency_seconds
        self._clock = clock
        self.scripts: dict[str, Script] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._cache = PromptCache()
        self._threads: OrderedDict[str, JsonDict] = OrderedDict()

    def reset(self) -> None:
        """Begin all sessions again and empty the prompt cache; the scripts stay."""
        self._sessions.clear()
        self._cache.clear()
        self._threads.clear()

    def add_script(self, name: str, script: Script) -> None:
        """Register a script; its sessions begin again."""
        self.scripts[name] = script
        for key in [key for key in self._sessions if key.partition("/")[0] == name]:
            del self._sessions[key]

    def count_tokens(self, raw: bytes, headers: Mapping[str, str]) -> int:
        """The answer of count_tokens. Raises `ApiError`."""
        check_headers(headers)
        body = parse_request(raw)
        validate_request(body, counting=True)
        return count_input(body)

    def plan(self, raw: bytes, headers: Mapping[str, str], scope: str) -> Plan:
        """The plan for one message request. `scope` separates prompt caches (one for each API key). Never raises
        `ApiError`: a refused request is a plan as well."""
        plan = Plan()
        try:
            self._plan(plan, raw, headers, scope)
        except ApiError as error:
            plan.error = error
        except Exception as error:  # noqa: BLE001 - a client must get an answer in the API's shape, and the log a line
            plan.error = ApiError(500, f"the stand-in could not answer: {type(error).__name__}: {error}")
        return plan

    def _plan(self, plan: Plan, raw: bytes, headers: Mapping[str, str], scope: str) -> None:
        check_headers(headers)
        body = parse_request(raw)
        plan.stream = body.get("stream") is True
        name, session_name = self._key(body, headers)
        plan.script, plan.session_name = name, session_name
        full = self._with_thread(body)
        session = self._session(name, session_name, raw)
        ask = Ask(name or "", session_name or "", session.step, session.attempt, full)
        plan.step = session.step
        session.attempt += 1
        if self._fault_by_header(plan, headers, session):
            return
        turn = turn_of(self.scripts[name], ask) if name is not None else default_turn(ask)
        for number, fault in enumerate(turn.faults):
            fired = session.fired.get(number, 0)
            if fault.times < 0 or fired < fault.times:
                session.fired[number] = fired + 1
                plan.fault = fault
                return
        self._answer(plan, turn, ask, session, scope, raw)

    def _answer(self, plan: Plan, turn: Turn, ask: Ask, session: Session, scope: str, raw: bytes) -> None:
        origin = (ask.name, ask.session) if ask.name else ("-", hashlib.sha256(raw).hexdigest())
        identity = (self._seed, *origin, ask.step)
        used = self._cache.account(ask.body, scope, self._clock())
        plan.message = build_message(turn, ask, used, identity)
        plan.pacing = turn.pacing
        plan.latency = self._latency * _jitter(*identity) if turn.pacing.latency is None else turn.pacing.latency
        plan.session = session
        session.step += 1
        session.attempt = 0
        session.fired.clear()
        if ask.body.get("thread"):
            reply = {"role": "assistant", "content": plan.message["content"]}
            self._threads[plan.message["id"]] = {**ask.body, "messages": [*ask.messages, reply]}
            while len(self._threads) > MAX_THREADS:
                self._threads.popitem(last=False)

    def _fault_by_header(self, plan: Plan, headers: Mapping[str, str], session: Session) -> bool:
        text = headers.get(FAULT_HEADER)
        if not text:
            return False
        try:
            fault, after = fault_from_header(text)
        except ValueError as error:
            raise invalid(str(error)) from error
        if session.step < after or (0 <= fault.times <= session.header_fired):
            return False
        session.header_fired += 1
        plan.fault = fault
        return True

    def _with_thread(self, body: JsonDict) -> JsonDict:
        """The whole conversation of a request that continues a stored thread; validated either way."""
        thread = body.get("thread")
        if not isinstance(thread, dict) or thread.get("type") != "continue":
            validate_request(body)
            return body
        stored = self._threads.get(str(thread.get("previous_message_id")))
        if stored is None:
            raise ApiError(
                404,
                f"No thread found for previous_message_id {thread.get('previous_message_id')!r}",
                details={"error_code": "thread_not_found"},
            )
        validate_request({**stored, **body}, continues=True)
        full = {**stored, **body, "messages": [*stored["messages"], *body["messages"]]}
        validate_request(full)
        return full

    def _key(self, body: JsonDict, headers: Mapping[str, str]) -> tuple[str | None, str | None]:
        key = headers.get(SCRIPT_HEADER) or _key_in_body(body)
        if key:
            name, _, session = key.partition("/")
            if name not in self.scripts:
                known = ", ".join(sorted(self.scripts)) or "none"
                raise invalid(f"No script named {name!r} is registered; known: {known}.")
            return name, session
        model = body.get("model")
        return (model, "") if isinstance(model, str) and model in self.scripts else (None, None)

    def _session(self, name: str | None, session_name: str | None, raw: bytes) -> Session:
        # Without a script, equal requests share a session: each gets an id of its own, whatever order they come in.
        key = f"{name}/{session_name}" if name is not None else f"#{hashlib.sha256(raw).hexdigest()}"
        session = self._sessions.setdefault(key, Session())
        self._sessions.move_to_end(key)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises `ApiError` 401 or 400 where the key or the version is missing."""
    if not headers.get("x-api-key") and not headers.get("authorization"):
        raise ApiError(401, "x-api-key header is required")
    if not headers.get("anthropic-version"):
        raise invalid("anthropic-version: header is required")


def _key_in_body(body: JsonDict) -> str | None:
    metadata = body.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(user_id, str) and user_id.startswith(USER_ID_PREFIX):
        return user_id.removeprefix(USER_ID_PREFIX)
    system = body.get("system")
    places = content_blocks(system) if isinstance(system, str | list) else []
    messages = body.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], dict):
        content = messages[0].get("content")
        places = [*places, *(content_blocks(content) if isinstance(content, str | list) else [])]
    for block in places:
        text = block.get("text")
        if isinstance(text, str) and MARKER_START in text:
            return text.partition(MARKER_START)[2].partition("]]")[0]
    return None


def _jitter(*identity: object) -> float:
    """Between 0.5 and 1.5, the same for the same call."""
    digest = hashlib.sha256(make_id("jit", *identity).encode()).digest()
    return 0.5 + int.from_bytes(digest[:4], "big") / 2**32
