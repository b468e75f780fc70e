"""Wrapping claude-agent-sdk's methods, and undoing it.

`InternalClient.process_query`, which every `query()` iterates, and `ClaudeSDKClient.connect` / `query` say when a run
begins; `Query`, the connection to the CLI, says everything else: its constructor (the stream of messages is tapped
where they arrive, so that times do not depend on how fast the host reads), the handling of the CLI's requests (hooks,
permissions, in-process tools run in the right run), and its end. What is yielded, returned and raised stays as it is:
the host iterates the SDK's own generators.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from loopscope._internal import guard, runtime, scope
from loopscope._internal.imports import Apply
from loopscope._internal.runs import Run
from loopscope._internal.wrapping import LibraryInstrumentation

from .session import Session

_opening: ContextVar[Session | None] = ContextVar("loopscope_claude_agent_session", default=None)
"""The session that the `Query` being constructed belongs to."""
_lock = threading.Lock()
_installed: ClaudeAgentInstrumentation | None = None


class ClaudeAgentInstrumentation(LibraryInstrumentation):
    """claude-agent-sdk as instrumented by Loopscope. `undo()` restores it; also a context manager."""

    library = "claude-agent-sdk"

    def targets(self) -> Mapping[str, Apply]:
        return {
            "claude_agent_sdk._internal.query": self._apply_query,
            "claude_agent_sdk._internal.client": self._apply_internal_client,
            "claude_agent_sdk.client": self._apply_client,
        }

    def undo(self) -> None:
        """Put the SDK's own methods back. Twice is harmless. Connections that are open are recorded no further."""
        global _installed
        super().undo()
        with _lock:
            if _installed is self:
                _installed = None

    def _apply_query(self, module: ModuleType) -> None:
        query = getattr(module, "Query", None)
        self.replace(query, "__init__", self._query_init)
        self.replace(query, "_handle_control_request", self._handle_control_request)
        self.replace(query, "close", self._close)

    def _apply_internal_client(self, module: ModuleType) -> None:
        self.replace(getattr(module, "InternalClient", None), "process_query", self._process_query)

    def _apply_client(self, module: ModuleType) -> None:
        client = getattr(module, "ClaudeSDKClient", None)
        self.replace(client, "connect", self._connect)
        self.replace(client, "query", self._client_query)

    # --- the connection ---

    def _query_init(self, original: Any) -> Any:
        @functools.wraps(original)
        def init(query: Any, *args: Any, **kwargs: Any) -> None:
            original(query, *args, **kwargs)
            session = _opening.get() if self.active else None
            if session is not None:
                _tap(query, session, self)

        return init

    def _handle_control_request(self, original: Any) -> Any:
        @functools.wraps(original)
        async def _handle_control_request(query: Any, request: Any) -> Any:
            session = session_of(query) if self.active else None
            inside = session.where(request) if session is not None else None
            if inside is None:
                return await original(query, request)
            around = scope.put(inside)
            try:
                return await original(query, request)
            finally:
                scope.put_back(around)

        return _handle_control_request

    def _close(self, original: Any) -> Any:
        @functools.wraps(original)
        async def close(query: Any) -> Any:
            session = session_of(query)
            # During a step of the host, whoever drives the step sees the error that led here and ends the run.
            if session is not None and not session.stepping:
                session.ended(GeneratorExit())
            return await original(query)

        return close

    # --- query() ---

    def _process_query(self, original: Any) -> Any:
        @functools.wraps(original)
        def process_query(client: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.active or runtime.active() is None:
                return original(client, *args, **kwargs)
            prompt = args[0] if args else kwargs.get("prompt")
            options = args[1] if len(args) > 1 else kwargs.get("options")
            steps = _Steps(Session(options, one_run=True), prompt)
            if isinstance(prompt, AsyncIterable):
                tapped = _Prompts(prompt, steps.session, lambda: steps.run)
                if args:
                    args = (tapped, *args[1:])
                else:
                    kwargs = {**kwargs, "prompt": tapped}
            steps.begin(original(client, *args, **kwargs))
            return steps

        return process_query

    # --- ClaudeSDKClient ---

    def _connect(self, original: Any) -> Any:
        @functools.wraps(original)
        async def connect(client: Any, prompt: Any = None) -> None:
            if not self.active or runtime.active() is None:
                return await original(client, prompt)
            session = Session(client.options, one_run=False)
            run = session.asked(prompt) if prompt is not None else None
            if isinstance(prompt, AsyncIterable):
                prompt = _Prompts(prompt, session, lambda: run)
            token = _opening.set(session)
            session.stepping = True
            try:
                await original(client, prompt)
            except BaseException as error:
                session.ended(error)
                raise
            finally:
                session.stepping = False
                _opening.reset(token)

        return connect

    def _client_query(self, original: Any) -> Any:
        @functools.wraps(original)
        async def query(client: Any, prompt: Any, *args: Any, **kwargs: Any) -> None:
            connection = getattr(client, "_query", None)
            session = session_of(connection) if self.active and connection is not None else None
            if session is None:
                return await original(client, prompt, *args, **kwargs)
            run = session.asked(prompt)
            if isinstance(prompt, AsyncIterable):
                prompt = _Prompts(prompt, session, lambda: run)
            try:
                return await original(client, prompt, *args, **kwargs)
            except BaseException as error:
                session.not_sent(run, error)
                raise

        return query


class _Tap:
    """The sending end of a connection's messages: looks at each, passes everything on."""

    def __init__(self, stream: Any, session: Session, instrumentation: ClaudeAgentInstrumentation) -> None:
        self.stream = stream
        self.session = session
        self.instrumentation = instrumentation

    def send(self, item: Any) -> Coroutine[Any, Any, None]:
        if self.instrumentation.active:
            self.session.arrived(item)
        return self.stream.send(item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@guard.guarded
def _tap(query: Any, session: Session, instrumentation: ClaudeAgentInstrumentation) -> None:
    query._message_send = _Tap(query._message_send, session, instrumentation)


def session_of(query: Any) -> Session | None:
    """The recorder of a connection; None when it was opened before the SDK was instrumented."""
    stream = getattr(query, "_message_send", None)
    return stream.session if isinstance(stream, _Tap) else None


class _Steps:
    """The steps of `query()`: its run is current while one executes, never in the code that consumes it.

    Stands for the generator of `process_query`, which the SDK's own `query()` iterates; the host never meets it.
    """

    def __init__(self, session: Session, prompt: object) -> None:
        self.session = session
        self.run: Run | None = None
        self._prompt = prompt
        self._begun = False
        self._inner: Any = None

    def begin(self, inner: Any) -> None:
        """Drive this generator."""
        self._inner = inner

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Any:
        return await self._step(self._inner.__anext__)

    async def asend(self, value: Any) -> Any:
        return await self._step(lambda: self._inner.asend(value))

    async def athrow(self, *error: Any) -> Any:
        return await self._step(lambda: self._inner.athrow(*error))

    async def aclose(self) -> None:
        await self._step(self._inner.aclose)
        self.session.ended(GeneratorExit())

    async def _step(self, resume: Callable[[], Awaitable[Any]]) -> Any:
        session = self.session
        if not self._begun:
            self._begun = True
            self.run = session.asked(self._prompt)
            self._prompt = None
        around = scope.put(session.inside())
        token = _opening.set(session)
        session.stepping = True
        try:
            return await resume()
        except StopAsyncIteration:
            session.ended()
            raise
        except BaseException as error:
            session.ended(error)
            raise
        finally:
            session.stepping = False
            _opening.reset(token)
            scope.put_back(around)


class _Prompts:
    """A prompt that is a stream of messages: notes each, in the run, and passes it on."""

    def __init__(self, prompt: AsyncIterable[Any], session: Session, run: Callable[[], Run | None]) -> None:
        self._prompt = prompt
        self._session = session
        self._run = run
        self._iterator: Any = None

    def __aiter__(self) -> _Prompts:
        self._iterator = aiter(self._prompt)
        return self

    async def __anext__(self) -> Any:
        run = self._run()
        around = scope.put(run.scope if run is not None else None)
        try:
            message = await anext(self._iterator)
        finally:
            scope.put_back(around)
        self._session.prompted(message, run)
        return message


def instrument_claude_agent_sdk() -> ClaudeAgentInstrumentation:
    """Record every `query()` and every turn of a `ClaudeSDKClient` as a run. A second time gives the first's object.

    `configure()` calls this. The object's `undo()` restores the SDK. A connection that is open already is not recorded.
    """
    global _installed
    with _lock:
        if _installed is None:
            _installed = ClaudeAgentInstrumentation()
            _installed.install()
        return _installed
