"""A document rebuilt from its shape and the stored texts: the inverse of `split`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from loopscope_schemas.content.blocks import Leaves, fill
from loopscope_schemas.content.exact_json import Json, Pairs, Raw, parse

T = TypeVar("T")


class MissingContentError(LookupError):
    """A text, prompt or binary that the document needs is not in the store. The message names its hash."""


def join(
    shape: str,
    hashes: Sequence[bytes],
    body: Callable[[bytes], str],
    *,
    prompts: Sequence[bytes] = (),
    prompt: Callable[[bytes], tuple[str, str]] | None = None,
    blob: Callable[[bytes], bytes] | None = None,
) -> Json:
    """The document, exactly as it was.

    `hashes` are the blocks in order, `prompts` the prompts in order; `body` answers the text of a block, `prompt` the
    (text, stored shape) of a prompt, `blob` the bytes of a binary. They raise LookupError for what is not there,
    which is raised as MissingContentError.
    """
    joiner = _Joiner(iter(hashes), iter(prompts), body, prompt, blob)
    return joiner.value(parse(shape))


class _Joiner:
    def __init__(
        self,
        hashes: Iterator[bytes],
        prompts: Iterator[bytes],
        body: Callable[[bytes], str],
        prompt: Callable[[bytes], tuple[str, str]] | None,
        blob: Callable[[bytes], bytes] | None,
    ) -> None:
        self._hashes = hashes
        self._prompts = prompts
        self._body = body
        self._prompt = prompt
        self._blob = blob

    def value(self, shape: Any) -> Any:
        if isinstance(shape, list) and shape and isinstance(shape[0], str) and not isinstance(shape[0], Raw):
            match shape[0]:
                case "%":
                    return self._block(shape[1])
                case "$":
                    return self._prompt_with(shape[1])
                case "$$":
                    return self._prompt_with(None)
                case "!":
                    return self.value(shape[1])
                case _:
                    pass
        if isinstance(shape, list) and not isinstance(shape, Pairs):
            return [self.value(item) for item in shape]
        if isinstance(shape, Pairs):
            return Pairs((key, self.value(item)) for key, item in shape)
        if isinstance(shape, dict):
            return {key: self.value(item) for key, item in shape.items()}
        return fill(shape, Leaves(""), self._binary)

    def _block(self, shape: Any) -> Any:
        hash_ = next(self._hashes, None)
        if hash_ is None:
            raise MissingContentError("the call's list of content hashes ends before its shape does")
        return fill(shape, Leaves(_found(self._body, hash_, "text")), self._binary)

    def _prompt_with(self, shape: Any) -> Any:
        hash_ = next(self._prompts, None)
        if hash_ is None or self._prompt is None:
            raise MissingContentError("the call's list of prompt hashes ends before its shape does")
        text, stored = _found(self._prompt, hash_, "prompt")
        return fill(parse(stored) if shape is None else shape, Leaves(text), self._binary)

    def _binary(self, hash_: bytes) -> bytes:
        if self._blob is None:
            raise MissingContentError(f"binary {hash_.hex()} is not in the store")
        return _found(self._blob, hash_, "binary")


def _found(look_up: Callable[[bytes], T], hash_: bytes, what: str) -> T:
    try:
        return look_up(hash_)
    except LookupError as error:
        raise MissingContentError(f"{what} {hash_.hex()} is not in the store") from error
