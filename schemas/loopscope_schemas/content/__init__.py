"""Content blocks: the JSON of prompts and answers split into searchable text and exact shape, and joined again.

`JSON = f(shape, bodies)`, exactly: key order, numbers as they were written, repeated keys, control characters, lone
surrogates. The collector splits, whoever shows or resends a call joins. Nothing here does I/O.
"""

from loopscope_schemas.content.blocks import Blob, Block, join_block, split_block
from loopscope_schemas.content.exact_json import InexactJsonError, Json, Pairs, Raw, dump, parse
from loopscope_schemas.content.join import MissingContentError, join
from loopscope_schemas.content.parts import Memo, Message, Prompt, Split
from loopscope_schemas.content.split import (
    split_answer,
    split_document,
    split_messages,
    split_opaque,
    split_prompt,
    split_text,
)

__all__ = [
    "Blob",
    "Block",
    "InexactJsonError",
    "Json",
    "Memo",
    "Message",
    "MissingContentError",
    "Pairs",
    "Prompt",
    "Raw",
    "Split",
    "dump",
    "join",
    "join_block",
    "parse",
    "split_answer",
    "split_block",
    "split_document",
    "split_messages",
    "split_opaque",
    "split_prompt",
    "split_text",
]
