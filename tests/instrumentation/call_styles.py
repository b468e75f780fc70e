"""The ways to ask the anthropic SDK for an answer, as data: each written once, for the sync and the async client.

`test_call_styles` runs each of them under each of `call_conditions`. A style notes all that its host can see: types,
values and `repr` of what it gets, in order, and the exception that ends it.
"""

import asyncio
import gc
import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import anthropic
from pydantic import BaseModel

Reading = Literal["whole", "never", "dropped", "left"]
"""How much of a stream is read: all of it; nothing, then it is forgotten; some of it, then it is forgotten; some of it,
then its `with` block is left (or it is closed, where it has none)."""

ASK: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "hello"}],
}
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_END: Any = object()


class Greeting(BaseModel):
    """What `parse` is asked for; every answer of the stand-in has it as its text."""

    greeting: str


@dataclass
class Host:
    """The host's code: which client it has, how far it reads, and what it saw."""

    client: Any
    asynchronous: bool
    reading: Reading = "whole"
    enough: str = ""
    """Part of the `repr` of the item after which a partly read stream is left."""
    seen: list[str] = field(default_factory=list[str])
    saw_enough: Callable[[], None] = lambda: None

    def note(self, value: Any) -> Any:
        cls = type(value)
        self.seen.append(_ADDRESS.sub("0x", f"{cls.__module__}.{cls.__qualname__} {value!r}"))
        return value

    async def value(self, made: Any) -> Any:
        """What a method of the client gives, awaited where it has to be."""
        return await made if inspect.isawaitable(made) else made

    async def next(self, iterator: Any) -> Any:
        if not self.asynchronous:
            return next(iterator, _END)
        try:
            return await anext(iterator)
        except StopAsyncIteration:
            return _END

    def iterator(self, made: Any) -> Any:
        return aiter(made) if self.asynchronous else iter(made)

    async def enter(self, manager: Any) -> Any:
        return await manager.__aenter__() if self.asynchronous else manager.__enter__()

    async def leave(self, manager: Any, error: BaseException | None = None) -> None:
        given = (type(error), error, error.__traceback__) if error is not None else (None, None, None)
        await self.value(manager.__aexit__(*given) if self.asynchronous else manager.__exit__(*given))

    async def read(self, made: Any) -> None:
        """Iterate over a stream, as far as it is to be read."""
        if self.reading == "never":
            return
        iterator = self.iterator(made)
        while (item := await self.next(iterator)) is not _END:
            self.note(item)
            if self.enough and self.enough in self.seen[-1]:
                self.saw_enough()
                if self.reading != "whole":
                    return

    async def read_in(self, manager: Any, stream_of: Callable[[Any], Any] = lambda entered: entered) -> None:
        """Read the stream of a context manager; leave its block unless the stream is to be forgotten."""
        stream = self.note(await self.value(stream_of(self.note(await self.enter(manager)))))
        try:
            await self.read(stream)
        except BaseException as error:
            await self.leave(manager, error)
            raise
        if self.reading in ("whole", "left"):
            await self.leave(manager)

    async def read_and_close(self, stream: Any) -> None:
        """Read a stream that is closed with a method."""
        await self.read(self.note(stream))
        if self.reading == "left":
            await self.value(stream.close())


Act = Callable[[Host, Any], Awaitable[None]]
"""Ask through the given `messages` resource; note what comes."""


@dataclass(frozen=True)
class Style:
    """One way to ask."""

    name: str
    """As a user writes it, from `messages` or `beta.messages` on."""
    act: Act
    kind: Literal["answer", "stream", "body", "count"]
    """What the host gets: the whole answer; the events of a streamed one; the bytes of one; a count of tokens."""
    beta: bool = False
    needs: tuple[str, ...] = ("create",)
    """Methods of the resource without which this SDK has no such style."""
    loops: bool = False
    """Whether it answers tool calls by itself, and so makes another API call."""

    @property
    def label(self) -> str:
        return ("beta." if self.beta else "") + self.name

    def missing(self, client: Any) -> str | None:
        """The method that this version of the SDK does not have."""
        resource: Any = client.beta.messages if self.beta else client.messages
        for name in self.needs:
            # A class has it: asking the instance would make the wrappers of raw responses.
            if not hasattr(type(resource), name) or (name == "parse" and not _takes_a_format(resource)):
                return f"the SDK has no {'beta.' if self.beta else ''}messages.{name}"
        return None


def _takes_a_format(resource: Any) -> bool:
    return "output_format" in inspect.signature(type(resource).parse).parameters


async def _create(host: Host, messages: Any) -> None:
    host.note(await host.value(messages.create(**ASK)))


async def _create_stream(host: Host, messages: Any) -> None:
    await host.read_and_close(await host.value(messages.create(**ASK, stream=True)))


async def _stream(host: Host, messages: Any) -> None:
    await host.read_in(messages.stream(**ASK))


async def _parse(host: Host, messages: Any) -> None:
    host.note(host.note(await host.value(messages.parse(**ASK, output_format=Greeting))).parsed_output)


async def _raw(host: Host, messages: Any) -> None:
    response = host.note(await host.value(messages.with_raw_response.create(**ASK)))
    host.note(response.status_code)
    host.note(response.headers["request-id"])
    host.note(await host.value(response.parse()))


async def _raw_stream(host: Host, messages: Any) -> None:
    response = host.note(await host.value(messages.with_raw_response.create(**ASK, stream=True)))
    await host.read_and_close(await host.value(response.parse()))


async def _streaming(host: Host, messages: Any) -> None:
    await host.read_in(messages.with_streaming_response.create(**ASK), lambda response: response.iter_bytes())


async def _streaming_stream(host: Host, messages: Any) -> None:
    await host.read_in(messages.with_streaming_response.create(**ASK, stream=True), lambda response: response.parse())


async def _count(host: Host, messages: Any) -> None:
    host.note(await host.value(messages.count_tokens(model=ASK["model"], messages=ASK["messages"])))


async def _count_raw(host: Host, messages: Any) -> None:
    response = await host.value(messages.with_raw_response.count_tokens(model=ASK["model"], messages=ASK["messages"]))
    host.note(await host.value(host.note(response).parse()))


def _runner(host: Host, messages: Any, **more: Any) -> Any:
    def look(where: str) -> str:
        """Look somewhere.

        Args:
            where: the place
        """
        return f"nothing at {where}"

    async def look_async(where: str) -> str:
        return look(where)

    look_async.__doc__ = look.__doc__
    if host.asynchronous:
        tool: Any = anthropic.beta_async_tool(look_async, name="look")
    else:
        tool = anthropic.beta_tool(look)
    return messages.tool_runner(**ASK, tools=[tool], **more)


async def _tool_runner(host: Host, messages: Any) -> None:
    runner = _runner(host, messages)
    iterator = host.iterator(runner)
    while (item := await host.next(iterator)) is not _END:
        host.note(item)
    host.note(await host.value(runner.until_done()))


async def _tool_runner_stream(host: Host, messages: Any) -> None:
    runner = _runner(host, messages, stream=True)
    iterator = host.iterator(runner)
    while (item := await host.next(iterator)) is not _END:
        await host.read(host.note(item))
        if host.reading == "left":
            await host.value(item.close())
        if host.reading != "whole":
            return


def _thread(messages: Any) -> Any:
    return messages.thread(model=ASK["model"], max_tokens=ASK["max_tokens"])


async def _thread_send(host: Host, messages: Any) -> None:
    thread = _thread(messages)
    host.note(await host.value(thread.send(*ASK["messages"])))
    host.note(thread.messages)


async def _thread_parse(host: Host, messages: Any) -> None:
    thread = messages.thread(model=ASK["model"], max_tokens=ASK["max_tokens"], output_format=Greeting)
    host.note(await host.value(thread.parse(*ASK["messages"])))


async def _thread_stream(host: Host, messages: Any) -> None:
    await host.read_in(_thread(messages).stream(*ASK["messages"]))


def _both(*styles: tuple[Any, ...], **more: Any) -> list[Style]:
    return [Style(*style, beta=beta, **more) for beta in (False, True) for style in styles]


STYLES: list[Style] = [
    *_both(
        ("messages.create", _create, "answer"),
        ("messages.create(stream=True)", _create_stream, "stream"),
        ("messages.with_raw_response.create", _raw, "answer"),
        ("messages.with_raw_response.create(stream=True)", _raw_stream, "stream"),
        ("messages.with_streaming_response.create", _streaming, "body"),
        ("messages.with_streaming_response.create(stream=True)", _streaming_stream, "stream"),
    ),
    *_both(("messages.stream", _stream, "stream"), needs=("stream",)),
    *_both(("messages.parse", _parse, "answer"), needs=("parse",)),
    *_both(
        ("messages.count_tokens", _count, "count"),
        ("messages.with_raw_response.count_tokens", _count_raw, "count"),
        needs=("count_tokens",),
    ),
    Style("messages.tool_runner", _tool_runner, "answer", beta=True, needs=("tool_runner",), loops=True),
    Style(
        "messages.tool_runner(stream=True)",
        _tool_runner_stream,
        "stream",
        beta=True,
        needs=("tool_runner",),
        loops=True,
    ),
    Style("messages.thread(...).send", _thread_send, "answer", beta=True, needs=("thread",)),
    Style("messages.thread(...).parse", _thread_parse, "answer", beta=True, needs=("thread",)),
    Style("messages.thread(...).stream", _thread_stream, "stream", beta=True, needs=("thread",)),
]


async def acted(style: Style, host: Host) -> None:
    """The host's code from its call to its end; the exception that ends it is noted like everything else."""
    messages = host.client.beta.messages if style.beta else host.client.messages
    try:
        await style.act(host, messages)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the host sees
        host.seen.append(_described(error))
    if host.reading == "whole":
        return
    # What the host forgot goes when its frame does; what is in a cycle, with the next collection. A forgotten async
    # generator is closed by a task of the event loop, and only then lets go of the one below it.
    for _ in range(4 if host.asynchronous else 1):
        gc.collect()
        if host.asynchronous:
            await asyncio.sleep(0.001)


def _described(error: BaseException) -> str:
    """An exception as its host can see it."""
    parts = [f"{type(error).__module__}.{type(error).__qualname__}", str(error), repr(error.args)]
    for name in ("message", "status_code", "body", "type", "request_id"):
        parts.append(f"{name}={getattr(error, name, None)!r}")
    for name in ("__cause__", "__context__"):
        other: Any = getattr(error, name)
        parts.append(f"{name}={type(other).__qualname__}: {other}" if other is not None else f"{name}=None")
    parts.append(f"suppressed={error.__suppress_context__}")
    return _ADDRESS.sub("0x", " | ".join(parts))


def run_to_its_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing, as those of the sync client do, without an event loop around it."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a sync client made its host wait for an event loop")
