"""Which requests of the anthropic SDK are what. Pure.

`calls` asks once for each request that passes the funnel, with the method and the path as the resource gave them;
what is no operation here passes unrecorded.
"""

from functools import lru_cache

CHAT = "chat"
"""An answer is asked for: an LLM call, one turn."""
COUNT_TOKENS = "count_tokens"
"""Only a count is asked for: free, no turn, no LLM call."""

CREATE_BATCH = "create_batch"
"""A batch is submitted: no turn, no usage; each of its results will be an LLM call."""


@lru_cache(maxsize=256)
def operation_of(method: str, url: str) -> str | None:
    """The operation of a request; None when it is none that is recorded (models, files ...)."""
    if method.lower() != "post":
        return None
    path = url.partition("?")[0].rstrip("/")
    if path.endswith("/messages"):
        return CHAT
    if path.endswith("/messages/batches"):
        return CREATE_BATCH
    return COUNT_TOKENS if path.endswith("/messages/count_tokens") else None
