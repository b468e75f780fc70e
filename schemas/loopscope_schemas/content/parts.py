"""What a document is split into, and what is remembered of the last one: data only, filled by `split` and `history`."""

from dataclasses import dataclass, field
from typing import Final

from loopscope_schemas.content.blocks import Blob, Block
from loopscope_schemas.content.exact_json import Json

INLINE_MAX_CHARS: Final = 1_024
"""A longer value outside of messages becomes a block: shapes are kept for each call, blocks once."""
SHORT_CHARS: Final = 100
"""Short enough to be inline whatever it takes to quote."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt or a set of tool definitions, stored once a day by hash."""

    kind: str
    """`system` or `tools`."""
    hash: bytes
    body: str
    shape: str
    """Of tool definitions; empty for a system prompt, whose shape belongs to each call."""
    blobs: tuple[Blob, ...] = ()


@dataclass(slots=True)
class Message:
    """One message of a list, split. Shared by all that hold it: not to be changed."""

    role: str
    shape: str
    blocks: tuple[Block, ...]


@dataclass(slots=True)
class Split:
    """What a document was split into."""

    shape: str = ""
    blocks: list[Block] = field(default_factory=list[Block])
    """In order of appearance; the shape refers to them by position."""
    prompts: list[Prompt] = field(default_factory=list[Prompt])
    """In order of appearance."""
    messages: list[Message] = field(default_factory=list[Message])
    params: dict[str, Json] = field(default_factory=dict[str, Json])
    """The other values of the top level that are short: model, max_tokens, temperature, metadata, usage ..."""
    params_text: str | None = None
    """`params` as JSON text, where it is at hand."""


@dataclass(slots=True)
class Frame:
    """What stands before or behind the messages of a document, split."""

    text: str
    parts: list[str]
    blocks: list[Block]
    prompts: list[Prompt]
    params: dict[str, Json]


@dataclass(slots=True)
class History:
    """The messages of a document, split."""

    text: str = ""
    """From the beginning of the first to the end of the last."""
    starts: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    messages: list[Message] = field(default_factory=list[Message])
    shapes: list[str] = field(default_factory=list[str])
    blocks: list[Block] = field(default_factory=list[Block])
    block_ends: list[int] = field(default_factory=list[int])
    """Number of blocks up to and including each message."""


@dataclass(slots=True)
class Memo:
    """What the last document of a trace consisted of."""

    head: Frame | None = None
    tail: Frame | None = None
    """Only together with the head before it."""
    params_text: str = ""
    """Of head and tail together."""
    history: History = field(default_factory=History)
    prompts: dict[str, tuple[str, str, Prompt]] = field(default_factory=dict[str, tuple[str, str, Prompt]])
    """By kind: (text, shape in the document, prompt)."""
    tools_by_id: dict[str, str] = field(default_factory=dict[str, str])

    def size(self) -> int:
        """Characters held, about: the document and, apart from it, the bodies of its blocks."""
        frames = len(self.head.text) if self.head else 0
        if self.tail:
            frames += len(self.tail.text)
        return 2 * (frames + len(self.history.text))
