"""Wrapping the anthropic SDK's methods, and undoing it.

Methods of the client bases: `request`, the funnel of every call, gives identity and outcome; `_build_request`, once an
HTTP attempt, gives the body's final bytes; `_process_response` gives the answer's bytes or stream before the SDK parses
it; `_should_retry` and `_calculate_retry_timeout`, called only after a failed attempt, give its status and its end;
`_attempt_request` finds requests that are sent while no call is under way.
What is called, returned and raised stays as it is. If a method is missing (an SDK that changed), what depends on it is
not recorded, once logged, and the rest works.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import Any

from loopscope._internal import guard
from loopscope._internal.imports import AfterImport

from .calls import begin_call, begin_outside
from .stopping import StoppedCall

_TARGET = "anthropic._base_client"
_OUTSIDE: Any = ()
"""No call of the SDK is under way; None is one that is not recorded. Both are false."""
_current: ContextVar[Any] = ContextVar("loopscope_anthropic_call", default=_OUTSIDE)
_lock = threading.Lock()
_installed: Instrumentation | None = None


class Instrumentation:
    """The anthropic SDK as instrumented by Loopscope. `undo()` restores it; also a context manager."""

    def __init__(self) -> None:
        self._active = True
        self._originals: list[tuple[type, str, Any, Any]] = []
        self._imports = AfterImport({_TARGET: self.apply})

    @property
    def active(self) -> bool:
        """False after `undo()`."""
        return self._active

    def undo(self) -> None:
        """Put the SDK's own methods back. Twice is harmless."""
        global _installed
        with _lock:
            self._active = False
            if _installed is self:
                _installed = None
            self._imports.remove()
            for owner, name, original, wrapper in reversed(self._originals):
                # Where somebody wrapped our wrapper, it must stay; it passes everything through from now on.
                if owner.__dict__.get(name) is wrapper:
                    setattr(owner, name, original)
            self._originals.clear()

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    # --- wrapping ---

    @guard.guarded
    def apply(self, module: ModuleType) -> None:
        """Wrap the methods of `anthropic._base_client`."""
        sync, asynchronous = module.SyncAPIClient, module.AsyncAPIClient
        self._replace(module.BaseClient, "_build_request", self._build_request)
        self._replace(module.BaseClient, "_should_retry", self._should_retry)
        self._replace(module.BaseClient, "_calculate_retry_timeout", self._calculate_retry_timeout)
        self._replace(sync, "request", self._request)
        self._replace(sync, "_process_response", self._process_response)
        self._replace(asynchronous, "request", self._async_request)
        if hasattr(sync, "_attempt_request"):  # SDKs without it have no middleware, which alone sends outside of a call
            self._replace(sync, "_attempt_request", self._attempt_request)
            self._replace(asynchronous, "_attempt_request", self._async_attempt_request)
        self._replace(asynchronous, "_process_response", self._async_process_response)

    def _replace(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        original = owner.__dict__.get(name)
        if original is None:
            guard.warn_once(
                f"anthropic.{name}", "loopscope: %s.%s is not there; is this SDK newer than us?", owner, name
            )
            return
        wrapper = make(original)
        setattr(owner, name, wrapper)
        self._originals.append((owner, name, original, wrapper))

    def _request(self, original: Any) -> Any:
        @functools.wraps(original)
        def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return original(client, *args, **kwargs)
            call = begin_call(client, args, kwargs)
            if isinstance(call, StoppedCall):
                return call.answer(client, args, kwargs)
            # Also for a request that is no LLM call, so that it is not taken for an attempt of one around it.
            token = _current.set(call)
            try:
                result = original(client, *args, **kwargs)
            except BaseException as error:
                if call is not None:
                    call.failed(error)
                raise
            finally:
                _current.reset(token)
            if call is not None:
                call.returned()
            return result

        return request

    def _async_request(self, original: Any) -> Any:
        @functools.wraps(original)
        async def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return await original(client, *args, **kwargs)
            call = begin_call(client, args, kwargs)
            if isinstance(call, StoppedCall):
                return await call.answer_async(client, args, kwargs)
            token = _current.set(call)
            try:
                result = await original(client, *args, **kwargs)
            except BaseException as error:
                if call is not None:
                    call.failed(error)
                raise
            finally:
                _current.reset(token)
            if call is not None:
                call.returned()
            return result

        return request

    def _attempt_request(self, original: Any) -> Any:
        @functools.wraps(original)
        def _attempt_request(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = begin_outside(client, args, kwargs) if self._active and _current.get() is _OUTSIDE else None
            if call is None:
                return original(client, *args, **kwargs)
            token = _current.set(call)
            try:
                result = original(client, *args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                _current.reset(token)
            call.answered_outside(result)
            return result

        return _attempt_request

    def _async_attempt_request(self, original: Any) -> Any:
        @functools.wraps(original)
        async def _attempt_request(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = begin_outside(client, args, kwargs) if self._active and _current.get() is _OUTSIDE else None
            if call is None:
                return await original(client, *args, **kwargs)
            token = _current.set(call)
            try:
                result = await original(client, *args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                _current.reset(token)
            call.answered_outside(result)
            return result

        return _attempt_request

    def _build_request(self, original: Any) -> Any:
        @functools.wraps(original)
        def _build_request(client: Any, *args: Any, **kwargs: Any) -> Any:
            request = original(client, *args, **kwargs)
            call = _current.get()
            if call and self._active:
                call.attempt(client, request, args[0] if args else kwargs.get("options"))
            return request

        return _build_request

    def _should_retry(self, original: Any) -> Any:
        @functools.wraps(original)
        def _should_retry(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = _current.get()
            if call and self._active:
                call.refused(args[0] if args else kwargs.get("response"))
            return original(client, *args, **kwargs)

        return _should_retry

    def _calculate_retry_timeout(self, original: Any) -> Any:
        @functools.wraps(original)
        def _calculate_retry_timeout(client: Any, *args: Any, **kwargs: Any) -> Any:
            delay = original(client, *args, **kwargs)
            call = _current.get()
            if call and self._active:
                call.retrying(delay)
            return delay

        return _calculate_retry_timeout

    def _process_response(self, original: Any) -> Any:
        @functools.wraps(original)
        def _process_response(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = _current.get()
            if call and self._active:
                call.answered(kwargs.get("response"))
            return original(client, *args, **kwargs)

        return _process_response

    def _async_process_response(self, original: Any) -> Any:
        @functools.wraps(original)
        async def _process_response(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = _current.get()
            if call and self._active:
                call.answered(kwargs.get("response"))
            return await original(client, *args, **kwargs)

        return _process_response

    def when_imported(self) -> None:
        """Wrap now if the SDK is imported, else as soon as the host imports it."""
        self._imports.install()


def instrument_anthropic() -> Instrumentation:
    """Record every Messages call of the anthropic SDK, existing clients included. A second time gives the first's
    object.

    `configure()` calls this. The object's `undo()` restores the SDK.
    """
    global _installed
    with _lock:
        if _installed is None:
            _installed = Instrumentation()
            _installed.when_imported()
        return _installed
