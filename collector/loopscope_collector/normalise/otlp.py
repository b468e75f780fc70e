"""Values of OTLP attributes as Python values and as text. Pure; called by `spans` and the dialects.

OTLP's integers have 64 bits and its maps may repeat a key: what is turned into JSON text is written exactly.
"""

import base64
import math
from typing import Any, TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from loopscope_schemas.content import Json, Pairs, Raw, dump

Value: TypeAlias = "str | bool | int | float | bytes | list[Any] | dict[str, Any] | Pairs | None"


def value_of(value: AnyValue) -> Value:
    """The Python value; lists and maps are `Json` (numbers inside them are `Raw` text)."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind in ("array_value", "kvlist_value"):
        return _json(value)
    return getattr(value, kind)


def text_of(value: Value) -> str:
    """Text of any value: a string as it is, all else as JSON; bytes as an object that holds their base64."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return f'{{"base64":"{base64.b64encode(value).decode()}"}}'
    return dump(value)


def _number(value: float) -> str:
    # NaN and infinities are no JSON, but the names that Python, JavaScript and ClickHouse read.
    return repr(value) if math.isfinite(value) else "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"


def _json(value: AnyValue) -> Json:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return Raw(value.int_value)
        case "double_value":
            return Raw(_number(value.double_value))
        case "bytes_value":
            return {"base64": base64.b64encode(value.bytes_value).decode()}
        case "array_value":
            return [_json(item) for item in value.array_value.values]
        case "kvlist_value":
            pairs = [(item.key, _json(item.value)) for item in value.kvlist_value.values]
            found = dict(pairs)
            return found if len(found) == len(pairs) else Pairs(pairs)
        case _:
            return None
