"""What a call's or tool's content fills: hashes, shapes, prompts, previews. Shared by the dialects; pure."""

import json
from typing import Any, Final

import orjson

from loopscope_collector.normalise.spans import Draft
from loopscope_schemas.content import (
    InexactJsonError,
    Json,
    Prompt,
    Raw,
    Split,
    dump,
    parse,
    split_block,
    split_prompt,
    split_text,
)
from loopscope_schemas.content.blocks import Block, digest
from loopscope_schemas.content.parts import Message

PREVIEW_CHARS: Final = 200


def put_input(draft: Draft, split: Split, size: int) -> None:
    """Columns of a request: blocks, prompts, chain root, preview. `size` in bytes."""
    columns = draft.columns
    blocks = split.blocks
    columns["input_hashes"] = [block.hash for block in blocks]
    columns["input_shape"] = split.shape
    columns["input_bytes"] = size
    columns["messages"] = len(split.messages)
    columns["input_preview"] = input_preview(blocks)
    system = b""
    for prompt in split.prompts:
        if prompt.kind == "system":
            columns["system_hash"] = system = prompt.hash
        else:
            columns["tools_hash"] = prompt.hash
        draft.batch.add_prompt(
            columns["day"],
            prompt,
            agent=columns.get("agent", ""),
            name=columns.get("prompt_name", "") if prompt.kind == "system" else "",
            version=columns.get("prompt_version", "") if prompt.kind == "system" else "",
            at=columns["start_time"],
        )
    columns["chain_root"] = chain_root(system, split.messages)
    draft.add_blocks(blocks)


def put_output(draft: Draft, split: Split, size: int) -> None:
    """Columns of an answer. `size` in bytes."""
    columns = draft.columns
    columns["output_hashes"] = [block.hash for block in split.blocks]
    columns["output_shape"] = split.shape
    columns["output_bytes"] = size
    columns["output_preview"] = output_preview(split.blocks)
    draft.add_blocks(split.blocks)


def chain_root(system: bytes, messages: list[Message]) -> bytes:
    """Hash of the system prompt and the messages up to and including the first of the user."""
    parts = [system]
    for message in messages:
        parts.extend(block.hash for block in message.blocks)
        if message.role == "user":
            break
    return digest(*parts)


def input_preview(blocks: list[Block]) -> str:
    """Beginning of the last text of the user or of a tool."""
    for block in reversed(blocks):
        if block.body and block.source in ("user", "tool_result"):
            return block.body[:PREVIEW_CHARS]
    return ""


def output_preview(blocks: list[Block]) -> str:
    """Beginning of the answer's text, or of the first tool call where it has none."""
    fallback = ""
    for block in blocks:
        if block.body and block.source == "assistant":
            return block.body[:PREVIEW_CHARS]
        if block.body and not fallback and block.source == "tool_call":
            fallback = block.body[:PREVIEW_CHARS]
    return fallback


def request_params(split: Split) -> str:
    """The short values of a request's top level as JSON text."""
    if not split.params:
        return ""
    return dump(split.params) if split.params_text is None else split.params_text


def put_tool(draft: Draft) -> None:
    """A tool call's arguments and result as content blocks.

    The blocks are those of the model's own tool_use and tool_result for the same call, so that what the history of
    the next LLM call holds anyway is not stored again.
    """
    columns = draft.columns
    tool, call_id = columns.get("tool", ""), columns.get("call_id", "")
    arguments, result = columns.get("input_text", ""), columns.get("output_text", "")
    if arguments:
        value = _parsed(arguments)
        block, _ = _block(
            "assistant", {"type": "tool_use", "id": call_id, "name": tool, "input": value}, tool, arguments
        )
        _put(draft, "input", arguments, block)
    if result:
        value = _parsed(result)
        # Of an object the model was shown JSON text; text and lists of blocks it was shown as they are.
        shown = value if (isinstance(value, str) and not isinstance(value, Raw)) or _is_content(value) else result
        block, _ = _block("user", {"type": "tool_result", "tool_use_id": call_id, "content": shown}, tool, result)
        _put(draft, "output", result, block)


def put_run(draft: Draft) -> None:
    """A run's input and final answer as content blocks; a plain text is the same block as the message of it."""
    columns = draft.columns
    for side, role in (("input", "user"), ("output", "assistant")):
        text = columns.get(f"{side}_text", "")
        if not text:
            continue
        value = _parsed(text)
        if isinstance(value, str) and not isinstance(value, Raw):
            block, _ = split_block(role, value)
        else:
            block = split_text(role, "text", text).blocks[0]
        _put(draft, side, text, block)


def _put(draft: Draft, side: str, text: str, block: Block) -> None:
    columns = draft.columns
    columns[f"{side}_hashes"] = [block.hash]
    columns[f"{side}_preview"] = block.body[:PREVIEW_CHARS]
    columns[f"{side}_bytes"] = len(text) if text.isascii() else len(text.encode())
    draft.add_blocks([block])


def _block(role: str, value: dict[str, Any], tool: str, text: str) -> tuple[Block, str]:
    try:
        return split_block(role, value, tool)
    except InexactJsonError:
        return split_block(role, text, tool)


def _parsed(text: str) -> Json:
    if text.startswith('"'):
        # For a string orjson is exact, and it refuses what it cannot hold.
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    try:
        return parse(text)
    except InexactJsonError:
        return text


def _is_content(value: Json) -> bool:
    """Whether a result is a list of content blocks rather than data."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "type" in item for item in value)


def split_parts(system: str | None, tools: str | None, messages: Split | None) -> Split:
    """One document of a system prompt, tool definitions (JSON texts or plain) and messages already split.

    Its shape reads {"system": ..., "tools": ..., "messages": ...}, what is absent left out.
    """
    split = Split()
    parts: list[str] = []
    prompts: list[Prompt] = []
    for kind, text in (("system", system), ("tools", tools)):
        if text is None:
            continue
        value = _parsed(text)
        try:
            prompt, shape = split_prompt(kind, value)
        except InexactJsonError:
            prompt, shape = split_prompt(kind, text)
        prompts.append(prompt)
        parts.append(f"{json.dumps(kind)}:{shape}")
    if messages is not None:
        parts.append(f'"messages":{messages.shape}')
        split.blocks, split.messages = messages.blocks, messages.messages
    split.prompts = prompts
    split.shape = "{" + ",".join(parts) + "}"
    return split
