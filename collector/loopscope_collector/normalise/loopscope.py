"""The dialect of Loopscope's own instrumentation: provider bodies as bytes. See docs/wire-format.md."""

from typing import Final

from loopscope_collector.normalise.content import put_input, put_output, put_run, put_tool, request_params
from loopscope_collector.normalise.otlp import Value
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas import attributes as at
from loopscope_schemas.content import Split, split_answer, split_document, split_opaque

NAME: Final = "loopscope"
SCOPES: Final = ("loopscope",)
_WITH_BODIES: Final = frozenset({"llm", "limit", "count", "batch"})


def translate(draft: Draft) -> None:
    """Fill the columns that the content of a span says."""
    kind = draft.columns["kind"]
    if kind in _WITH_BODIES:
        _translate_call(draft)
    elif kind == "tool":
        put_tool(draft)
    elif kind == "run":
        put_run(draft)


def _translate_call(draft: Draft) -> None:
    columns, content = draft.columns, draft.content
    request = _bytes(content.pop(at.REQUEST_BODY, None))
    response = _bytes(content.pop(at.RESPONSE_BODY, None))
    if request is None and response is None:
        return
    trace_id, run_id = columns["trace_id"], columns["run_id"]
    memo = draft.context.memo(trace_id, run_id)
    if request is not None:
        split = split_document(request, memo, role="user")
        if not _fits(split):
            split = split_opaque(request)
        put_input(draft, split, len(request))
        columns["request_params"] = request_params(split)
        if not columns.get("request_model"):
            columns["request_model"] = _param(split, "model")
    if response is not None:
        split = split_answer(response, memo)
        put_output(draft, split, len(response))
        for column, name in (("stop_reason", "stop_reason"), ("response_id", "id"), ("model", "model")):
            if not columns.get(column):
                columns[column] = _param(split, name)
    draft.context.keep(trace_id, run_id, memo)


def _bytes(value: Value) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else None


def _fits(split: Split) -> bool:
    """A span has room for one system prompt and one set of tools; a document that repeats them is kept whole."""
    kinds = [prompt.kind for prompt in split.prompts]
    return len(kinds) == len(set(kinds))


def _param(split: Split, name: str) -> str:
    value = split.params.get(name)
    return value if type(value) is str and value.isascii() else ""
