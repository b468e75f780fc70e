"""What a reader's SELECT may be made of: node types and their fields, functions, tables, settings.

Pure: it walks the engine's own syntax tree (JSON of `parseQueryToJSON`), in which every part of a statement has a
place. Whatever is not listed here is refused, new node types and new fields of later engines included. Used by
`guard`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, cast

from loopscope_collector.engine.config import DATABASE, words
from loopscope_collector.engine.errors import ACCESS_DENIED, ClickHouseError
from loopscope_collector.engine.settings import refuse_settings

Node = Mapping[str, Any]

NODES: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "SelectWithUnionQuery": """list_of_modes list_of_selects union_mode format_ast settings_ast is_outfile_append
            is_outfile_truncate is_into_outfile_with_stdout""",
        "SelectIntersectExceptQuery": "list_of_selects final_operator children",
        "SelectQuery": """distinct group_by group_by_all group_by_with_cube group_by_with_grouping_sets
            group_by_with_rollup group_by_with_totals having interpolate limit_by limit_by_length limit_by_offset
            limit_length limit_offset limit_with_ties order_by order_by_all prewhere qualify recursive_with
            select settings tables where window
            with distinct_on limit_by_all""",
        "ExpressionList": "children",
        "Subquery": "alias children cte_name",
        "WithElement": "name subquery is_materialized aliases",
        "Identifier": "alias name name_parts",
        "Literal": "alias value",
        "QueryParameter": "alias name param_type",
        "Asterisk": "transformers expression",
        "QualifiedAsterisk": "qualifier transformers",
        "ColumnsRegexpMatcher": "pattern transformers expression",
        "ColumnsListMatcher": "column_list transformers expression",
        "QualifiedColumnsRegexpMatcher": "pattern qualifier transformers",
        "QualifiedColumnsListMatcher": "column_list qualifier transformers",
        "ColumnsTransformerList": "children",
        "ColumnsApplyTransformer": "func_name lambda lambda_arg parameters column_name_prefix",
        "ColumnsExceptTransformer": "children is_strict pattern",
        "ColumnsReplaceTransformer": "children is_strict",
        "ColumnsReplaceTransformerReplacement": "children name",
        "Function": """alias arguments is_compound_name is_lambda_function is_operator is_window_function kind name
            nulls_action parameters window_definition window_name""",
        "WindowDefinition": """frame_begin_offset frame_begin_preceding frame_begin_type frame_end_offset
            frame_end_preceding frame_end_type frame_is_default frame_type order_by parent_window_name partition_by""",
        "WindowListElement": "definition name",
        "OrderByElement": """collation direction expression fill_from fill_step fill_to fill_staleness nulls_direction
            nulls_direction_was_explicitly_specified with_fill""",
        "InterpolateElement": "column expr",
        "SampleRatio": "numerator denominator",
        "TablesInSelectQuery": "children",
        "TablesInSelectQueryElement": "array_join table_expression table_join",
        "TableExpression": """column_aliases database_and_table_name final sample_offset sample_size subquery
            table_function""",
        "TableIdentifier": "alias name name_parts",
        "TableJoin": "kind locality on_expression strictness using_expression_list",
        "ArrayJoin": "expression_list kind",
        "SetQuery": "changes",
    }.items()
}

_SYNTAX_FUNCTIONS = frozenset(("lambda", "exists", "grouping", "untuple", "CAST", "cast"))
"""Functions of the grammar that `system.functions` does not list."""

_COMBINATORS = re.compile(
    r"(?:If|Array|Distinct|OrDefault|OrNull|State|Merge|MergeState|SimpleState|ForEach|Resample|ArgMin|ArgMax|Map|Null)\Z"
)

TABLE_FUNCTIONS = frozenset(
    ("numbers", "numbers_mt", "zeros", "zeros_mt", "generateSeries", "generate_series", "values", "view", "null")
)

SYSTEM_TABLES = words(
    """
    one numbers numbers_mt zeros zeros_mt settings tables columns databases functions table_functions
    data_type_families formats keywords time_zones collations parts parts_columns data_skipping_indices
    aggregate_function_combinators
    """
)
INFORMATION_TABLES = words(
    """
    tables columns schemata views key_column_usage referential_constraints statistics
    """
)

_IN_FUNCTIONS = re.compile(r"(?:global)?(?:not)?(?:null)?in(?:ignoreset)?\Z", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[^/\\:*?{}.\0\n]+\Z")


def refused(reason: str) -> ClickHouseError:
    """The error a reader gets; it names what was refused."""
    return ClickHouseError(ACCESS_DENIED, f"refused for readers: {reason}")


def _listed(name: str) -> frozenset[str]:
    text = (files("loopscope_collector.engine") / name).read_text("utf-8")
    return words(" ".join(line for line in text.splitlines() if not line.startswith("#")))


@cache
def allowed_functions() -> tuple[frozenset[str], frozenset[str]]:
    """Names as they are written, and all of them in lower case for the functions that are found in any case."""
    names = _listed("functions_allowed.txt") | _SYNTAX_FUNCTIONS
    return names, frozenset(name.lower() for name in names)


def forbidden_names(engine_functions: Iterable[str]) -> frozenset[str]:
    """Names, in lower case, that stand for functions readers may not call: reviewed and refused, or never reviewed."""
    unknown = (name for name in engine_functions if not function_allowed(name))
    return frozenset(name.lower() for name in (*_listed("functions_refused.txt"), *unknown))


def function_allowed(name: str) -> bool:
    """Whether readers may call a function; aggregate function combinators (`sumIf`) are seen through."""
    names, lowered = allowed_functions()
    while True:
        if name in names or name.lower() in lowered:
            return True
        match = _COMBINATORS.search(name)
        if match is None or match.start() == 0:
            return False
        name = name[: match.start()]


def check_table(database: str | None, table: str) -> None:
    """Raises ClickHouseError for a table outside of what readers may see. None stands for the current database."""
    shown = f"{database}.{table}" if database else table
    if _PLAIN_NAME.match(table) is None or (database is not None and _PLAIN_NAME.match(database) is None):
        raise refused(f"table {shown[:120]!r} is named like a path")
    if database is None or database == DATABASE:
        return
    if database == "system" and table in SYSTEM_TABLES:
        return
    if database in ("information_schema", "INFORMATION_SCHEMA") and table.lower() in INFORMATION_TABLES:
        return
    raise refused(f"table {shown[:120]!r}; readers see database {DATABASE} and a few tables of system")


@dataclass(slots=True)
class Findings:
    """What a SELECT uses; all of it is allowed."""

    tables: set[tuple[str | None, str]] = field(default_factory=set[tuple[str | None, str]])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    forbidden: frozenset[str] = frozenset()
    """Names that may not stand alone (see `forbidden_names`)."""
    maybe_tables: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Right sides of IN with two parts: a column of a table here, or a table of a database there."""


def check_select(tree: Node, database: str, forbidden: frozenset[str]) -> Findings:
    """Walk a syntax tree whose root is a SELECT. Raises ClickHouseError with the name of what is refused."""
    findings = Findings(forbidden=forbidden)
    for node in _nodes(tree):
        _check_node(node, findings, database)
    return findings


def _nodes(tree: Node) -> Iterator[Node]:
    """Every node, without recursion: a statement may be nested deeper than Python's stack."""
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(cast(list[Any], value))
        elif isinstance(value, dict):
            node = cast(dict[str, Any], value)
            yield node
            if node.get("type") in ("Literal", "SetQuery"):
                continue
            waiting.extend(child for child in node.values() if isinstance(child, dict | list))


def _check_node(node: Node, findings: Findings, database: str) -> None:
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in NODES:
        raise refused(f"syntax {str(kind)[:80]!r} is none that readers may use")
    if "out_file" in node:
        raise refused("INTO OUTFILE")
    if unknown := node.keys() - NODES[kind] - {"type"}:
        raise refused(f"syntax {kind}.{min(unknown)[:80]} is none that readers may use")
    match kind:
        case "Function":
            _check_function(node, findings)
        case "ColumnsApplyTransformer":
            if "func_name" in node and not function_allowed(str(node["func_name"])):
                raise refused(f"function {str(node['func_name'])[:80]!r} in APPLY")
        case "Identifier":
            _check_identifier(node, findings.forbidden)
        case "TableExpression":
            _check_table_function(node)
        case "TableIdentifier":
            _note_table(node, findings, database)
        case "SetQuery":
            for change in cast(list[Node], node.get("changes", [])):
                findings.settings[str(change["name"])] = cast(Node, change["value"]).get("value")
            refuse_settings(findings.settings)
        case "QueryParameter":
            if "identifier" in str(node.get("param_type", "")).lower():
                raise refused(
                    f"parameter {str(node.get('name'))[:80]!r} of type Identifier: what it names cannot be known"
                )
        case _:
            pass


def _check_function(node: Node, findings: Findings) -> None:
    name = str(node.get("name", ""))
    if node.get("kind") == "TABLE_ENGINE":
        raise refused("a table engine")
    if name in TABLE_FUNCTIONS and name not in allowed_functions()[0]:
        return  # as a function it does not exist; as a table function it was checked where it stands
    if not function_allowed(name):
        raise refused(f"function {name[:80]!r}")
    if _IN_FUNCTIONS.match(name):
        # The right side of IN may be a table's name.
        arguments = cast(list[Node], cast(Node, node.get("arguments", {})).get("children", []))
        for argument in arguments[1:]:
            parts = cast(list[str], argument.get("name_parts", []))
            if argument.get("type") == "Identifier" and len(parts) == 2:
                findings.maybe_tables.add((parts[0], parts[1]))
            elif argument.get("type") == "Identifier" and not parts:
                check_table(None, str(argument.get("name", "")))


def _check_identifier(node: Node, forbidden: frozenset[str]) -> None:
    """A bare name may stand for a function where a lambda is wanted: `arrayMap(file, [...])` calls `file`.

    No tree says which names do before the statement is analyzed for good, so a name that is such a function's is
    refused wherever it stands alone. A column of that name can still be read as `table.column`.
    """
    name = str(node.get("name", ""))
    if "name_parts" not in node and name.lower() in forbidden:
        raise refused(f"name {name[:80]!r}, which is a function's; write a column of this name as table.column")


def _check_table_function(node: Node) -> None:
    function = node.get("table_function")
    if isinstance(function, dict):
        name = str(cast(Node, function).get("name", ""))
        if name not in TABLE_FUNCTIONS:
            raise refused(f"table function {name[:80]!r}")


def _note_table(node: Node, findings: Findings, database: str) -> None:
    parts = cast(list[str], node.get("name_parts") or [node.get("name", "")])
    if len(parts) > 2:
        raise refused(f"table {'.'.join(parts)[:120]!r} has too many parts")
    given, table = (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])
    check_table(given if given is not None else (None if database == DATABASE else database), table)
    findings.tables.add((given if given is not None else database, table))
