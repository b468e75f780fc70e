"""Rows -> Arrow: the form in which rows travel to the store. The schema comes from the row types; pure.

Called by the writer. Text must be storable (no lone surrogates): `to_table` raises ValueError otherwise, and the writer
then looks for the row.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeAlias, get_type_hints

import pyarrow as pa

from loopscope_schemas.rows import Day, Hash, Nanoseconds

Table: TypeAlias = Any
"""A pyarrow.Table; pyarrow brings no type information."""
Schema: TypeAlias = Any
"""A pyarrow.Schema."""

_TYPES: Final[dict[Any, Any]] = {
    str: pa.string(),
    bytes: pa.binary(),
    bool: pa.bool_(),
    int: pa.uint64(),
    float: pa.float64(),
    Decimal: pa.decimal128(38, 12),
    Nanoseconds: pa.timestamp("ns", "UTC"),
    Day: pa.uint16(),
    Hash: pa.binary(16),
    list[Hash]: pa.list_(pa.binary(16)),
    list[str]: pa.list_(pa.string()),
    dict[str, str]: pa.map_(pa.string(), pa.string()),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    schema: Schema
    values: Callable[[Any], tuple[Any, ...]]
    maps: tuple[int, ...]
    """Columns that hold dicts."""


@cache
def _layout(row_type: type) -> _Layout:
    hints = get_type_hints(row_type)
    names = [item.name for item in dataclasses.fields(row_type)]
    fields: list[Any] = []
    for name in names:
        hint = hints[name]
        options = [item for item in getattr(hint, "__args__", ()) if item is not type(None)]
        nullable = type(None) in getattr(hint, "__args__", ())
        fields.append(pa.field(name, _TYPES[options[0] if nullable else hint], nullable=nullable))
    maps = tuple(index for index, item in enumerate(fields) if pa.types.is_map(item.type))
    return _Layout(pa.schema(fields), attrgetter(*names), maps)


def schema_of(row_type: type) -> Schema:
    """Arrow schema of a row type: its fields in order."""
    return _layout(row_type).schema


def to_table(row_type: type, rows: Sequence[Any]) -> Table:
    """Rows of one type as a table. Raises ValueError for a value that its column cannot hold."""
    layout = _layout(row_type)
    columns: list[Any] = list(zip(*map(layout.values, rows), strict=True)) if rows else [[] for _ in layout.schema]
    for index in layout.maps:
        columns[index] = _pairs(columns[index])
    try:
        arrays = [pa.array(values, item.type) for values, item in zip(columns, layout.schema, strict=True)]
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError) as error:
        raise ValueError(f"{row_type.__name__}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=layout.schema)


def _pairs(values: Iterable[dict[str, str]]) -> list[list[tuple[str, str]]]:
    """Maps as lists of pairs; spans of one resource share one dict, which is turned once."""
    known: dict[int, list[tuple[str, str]]] = {}
    pairs: list[list[tuple[str, str]]] = []
    for value in values:
        found = known.get(id(value))
        if found is None:
            found = known[id(value)] = list(value.items())
        pairs.append(found)
    return pairs


def to_stream(table: Table) -> bytes:
    """The table in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
