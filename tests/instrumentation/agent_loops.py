"""Bare agent loops in every call style of the anthropic SDK, as users write them: no decorator, no run, just `while`.

Each loop is a function `(client, question, work) -> the messages of its answers`. A loop ends when the model asks for
no tool. The asynchronous ones are coroutine functions that take an asynchronous client.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from support.sdk_features import has, needs

MODEL = "claude-sonnet-4-6"
MAX_ROUNDS = 60
"""A loop that does not end by itself is a failure, not a hang."""
LOOKUP: dict[str, Any] = {
    "name": "lookup",
    "description": "Looks something up.",
    "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
}


def request(messages: list[Any]) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 200, "messages": messages, "tools": [LOOKUP]}


def results_of(answer: Any, work: Callable[[str], str]) -> list[dict[str, Any]]:
    """A tool result for each tool use of an answer."""
    return [
        {"type": "tool_result", "tool_use_id": block.id, "content": work(block.input.get("key", ""))}
        for block in answer.content
        if block.type == "tool_use"
    ]


def loop(ask: Callable[[Any, dict[str, Any]], Any]) -> Callable[..., list[Any]]:
    """A `while` loop around one way of asking."""

    def run(client: Any, question: str, work: Callable[[str], str] = str.upper) -> list[Any]:
        messages: list[Any] = [{"role": "user", "content": question}]
        answers: list[Any] = []
        while True:
            assert len(answers) < MAX_ROUNDS, "the loop does not end"
            answer = ask(client, request(messages))
            answers.append(answer)
            messages.append({"role": "assistant", "content": answer.content})
            results = results_of(answer, work)
            if not results:
                return answers
            messages.append({"role": "user", "content": results})

    return run


def async_loop(ask: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> Callable[..., Awaitable[list[Any]]]:
    async def run(client: Any, question: str, work: Callable[[str], str] = str.upper) -> list[Any]:
        messages: list[Any] = [{"role": "user", "content": question}]
        answers: list[Any] = []
        while True:
            assert len(answers) < MAX_ROUNDS, "the loop does not end"
            answer = await ask(client, request(messages))
            answers.append(answer)
            messages.append({"role": "assistant", "content": answer.content})
            results = results_of(answer, work)
            await asyncio.sleep(0)
            if not results:
                return answers
            messages.append({"role": "user", "content": results})

    return run


def from_events(events: list[Any]) -> Any:
    """The message of a stream's events, as far as these loops need it."""
    import anthropic

    message: Any = None
    texts: dict[int, str] = {}
    for event in events:
        if event.type == "message_start":
            message = event.message.to_dict()
            message["content"] = []
        elif event.type == "content_block_start":
            message["content"].append(event.content_block.to_dict())
        elif event.type == "content_block_delta":
            part = event.delta.to_dict()
            texts[event.index] = texts.get(event.index, "") + (part.get("text") or part.get("partial_json") or "")
        elif event.type == "message_delta":
            message["stop_reason"] = event.delta.stop_reason
    for index, text in texts.items():
        block = message["content"][index]
        if block["type"] == "text":
            block["text"] += text
        elif text:
            block["input"] = json.loads(text)
    return anthropic.types.Message.construct(**(message | {"content": [_block(block) for block in message["content"]]}))


def _block(block: dict[str, Any]) -> Any:
    import anthropic

    kind = anthropic.types.TextBlock if block["type"] == "text" else anthropic.types.ToolUseBlock
    return kind.construct(**block)


def _create(client: Any, body: dict[str, Any]) -> Any:
    return client.messages.create(**body)


def _create_stream(client: Any, body: dict[str, Any]) -> Any:
    with client.messages.create(stream=True, **body) as stream:
        return from_events(list(stream))


def _stream(client: Any, body: dict[str, Any]) -> Any:
    with client.messages.stream(**body) as stream:
        "".join(stream.text_stream)
        return stream.get_final_message()


def _raw(client: Any, body: dict[str, Any]) -> Any:
    return client.messages.with_raw_response.create(**body).parse()


def _streamed_raw(client: Any, body: dict[str, Any]) -> Any:
    with client.messages.with_streaming_response.create(**body) as response:
        return response.parse()


def _beta(client: Any, body: dict[str, Any]) -> Any:
    return client.beta.messages.create(**body)


def _beta_stream(client: Any, body: dict[str, Any]) -> Any:
    with client.beta.messages.stream(**body) as stream:
        return stream.get_final_message()


async def _async_create(client: Any, body: dict[str, Any]) -> Any:
    return await client.messages.create(**body)


async def _async_create_stream(client: Any, body: dict[str, Any]) -> Any:
    stream = await client.messages.create(stream=True, **body)
    return from_events([event async for event in stream])


async def _async_stream(client: Any, body: dict[str, Any]) -> Any:
    async with client.messages.stream(**body) as stream:
        async for _ in stream.text_stream:
            pass
        return await stream.get_final_message()


async def _async_raw(client: Any, body: dict[str, Any]) -> Any:
    answer = (await client.messages.with_raw_response.create(**body)).parse()
    return await answer if inspect.isawaitable(answer) else answer


async def _async_streamed_raw(client: Any, body: dict[str, Any]) -> Any:
    async with client.messages.with_streaming_response.create(**body) as response:
        return await response.parse()


async def _async_beta_stream(client: Any, body: dict[str, Any]) -> Any:
    async with client.beta.messages.stream(**body) as stream:
        return await stream.get_final_message()


SYNC: dict[str, Callable[..., list[Any]]] = {
    "create": loop(_create),
    "create(stream=True)": loop(_create_stream),
    "stream": loop(_stream),
    "with_raw_response": loop(_raw),
    "with_streaming_response": loop(_streamed_raw),
    "beta.create": loop(_beta),
    "beta.stream": loop(_beta_stream),
}
ASYNC: dict[str, Callable[..., Awaitable[list[Any]]]] = {
    "async create": async_loop(_async_create),
    "async create(stream=True)": async_loop(_async_create_stream),
    "async stream": async_loop(_async_stream),
    "async with_raw_response": async_loop(_async_raw),
    "async with_streaming_response": async_loop(_async_streamed_raw),
    "async beta.stream": async_loop(_async_beta_stream),
}
NEEDS = {"beta.stream": "beta.messages.stream", "async beta.stream": "beta.messages.stream"}
"""What the SDK must have for a style, where an old one has it not."""
STYLES = [
    pytest.param(style, marks=needs(NEEDS[style])) if style in NEEDS else pytest.param(style)
    for style in (*SYNC, *ASYNC)
]


def possible(styles: Iterable[str]) -> list[str]:
    """Those of some styles that the installed SDK has, in order."""
    return sorted(style for style in styles if style not in NEEDS or has(NEEDS[style]))


def play(style: str, base_url: str, question: str, work: Callable[[str], str] = str.upper, **client: Any) -> list[Any]:
    """Play a loop of this style against an API at `base_url`, with a client of its own."""
    import anthropic

    settings: dict[str, Any] = {"api_key": "k", "base_url": base_url, "max_retries": 0} | client
    if style in SYNC:
        with anthropic.Anthropic(**settings) as made:
            return SYNC[style](made, question, work)

    async def main() -> list[Any]:
        async with anthropic.AsyncAnthropic(**settings) as made:
            return await ASYNC[style](made, question, work)

    return asyncio.run(main())
