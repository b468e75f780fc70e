"""Only reads for readers: decides about a statement before it runs.

A reader's text is never joined to another statement before it is known to be one SELECT. First it is parsed as data
(`classify_query`, `parseQueryToJSON` with the text as a parameter) and its syntax tree held against the lists in
`syntax`; then the analyzer's own view of it (`EXPLAIN QUERY TREE run_passes = 0`, which runs nothing) must name no
other functions. Runs on worker threads; called by `server`. Verdicts are kept by text, as dashboards ask the same
over and over.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from loopscope_collector.engine.config import DATABASE, EngineConfig
from loopscope_collector.engine.errors import BAD_ARGUMENTS, SYNTAX_ERROR, ClickHouseError
from loopscope_collector.engine.handles import Engine, Handle
from loopscope_collector.engine.settings import refuse_unbounded
from loopscope_collector.engine.statements import begins_with_insert, first_word, trailing_format, without_format
from loopscope_collector.engine.syntax import (
    TABLE_FUNCTIONS,
    check_select,
    check_table,
    forbidden_names,
    function_allowed,
    refused,
)

_KEPT = 2048
_KEPT_TEXT_BOUND = 32 * 1024
READER_TEXT_BOUND = 1024 * 1024

_NAME = r"(?:`[^`\\]+`|\"[^\"\\]+\"|[A-Za-z_]\w*)"
_TABLE = rf"(?:(?P<database>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_TAIL = r"(?:\s+FORMAT\s+\w+)?\s*;?\s*\Z"
_STRING = r"'[^'\\]*'"
_SHOWS = tuple(
    re.compile(r"\s*" + pattern + _TAIL, re.IGNORECASE)
    for pattern in (
        rf"(?:DESC|DESCRIBE)\s+(?:TABLE\s+)?{_TABLE}",
        rf"EXISTS\s+(?:(?:TABLE|VIEW)\s+)?{_TABLE}",
        rf"EXISTS\s+DATABASE\s+{_NAME}",
        rf"SHOW\s+CREATE\s+(?:TABLE\s+|VIEW\s+)?{_TABLE}",
        rf"SHOW\s+(?:FULL\s+)?TABLES(?:\s+(?:FROM|IN)\s+(?P<only_database>{_NAME}))?(?:\s+(?:NOT\s+)?I?LIKE\s+{_STRING})?(?:\s+LIMIT\s+\d+)?",
        rf"SHOW\s+(?:FULL\s+)?COLUMNS\s+(?:FROM|IN)\s+{_TABLE}",
        rf"SHOW\s+DATABASES(?:\s+(?:NOT\s+)?I?LIKE\s+{_STRING})?",
        rf"SHOW\s+FUNCTIONS(?:\s+I?LIKE\s+{_STRING})?",
        rf"SHOW\s+SETTINGS\s+I?LIKE\s+{_STRING}",
    )
)
_TREE_NAMES = re.compile(r"\b(function_name|table_function_name): ([^,\n]*)")
_ROW_WORDS = frozenset(
    ("SELECT", "WITH", "FROM", "SHOW", "DESC", "DESCRIBE", "EXISTS", "EXPLAIN", "CHECK", "VALUES", "(")
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a statement runs."""

    has_rows: bool
    streamable: bool
    output_format: str | None
    readonly: str = "1"


class Guard:
    """Judges statements. Thread-safe."""

    def __init__(self, config: EngineConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._kept: OrderedDict[tuple[str, str], Verdict | ClickHouseError] = OrderedDict()
        self._lock = threading.Lock()
        self._forbidden: frozenset[str] | None = None
        self._judged = self._refused = self._hits = 0

    def figures(self) -> dict[str, int]:
        """Counts since the start."""
        return {"judged": self._judged, "refused": self._refused, "from_cache": self._hits}

    def judge(self, sql: str, params: Mapping[str, str], database: str) -> Verdict:
        """A reader's statement. Raises ClickHouseError 497 with the name of what is refused, or the parser's error."""
        if len(sql) > READER_TEXT_BOUND:
            raise refused(f"a statement of {len(sql)} characters; readers may send {READER_TEXT_BOUND}")
        if database not in (DATABASE, "system", "default", "information_schema", "INFORMATION_SCHEMA"):
            raise refused(f"database {database[:80]!r}")
        # The default database overlays the file system, so nobody reads in it: for readers the name stands for ours.
        database = DATABASE if database == "default" else database
        key = (database, sql)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                self._hits += 1
        if isinstance(kept, Verdict):
            return kept
        if kept is not None:
            raise ClickHouseError.copy(kept)
        try:
            verdict: Verdict | ClickHouseError = self._judge(sql, params, database)
        except ClickHouseError as error:
            with self._lock:
                self._refused += 1
            if error.status == 403:
                self._keep(key, error)
            raise
        self._keep(key, verdict)
        return verdict

    def _keep(self, key: tuple[str, str], verdict: Verdict | ClickHouseError) -> None:
        with self._lock:
            self._judged += 1
            if len(key[1]) > _KEPT_TEXT_BOUND:
                return
            self._kept[key] = verdict
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _judge(self, sql: str, params: Mapping[str, str], database: str) -> Verdict:
        with self._engine.handle({"readonly": "1", "max_execution_time": "10", "max_threads": "1"}, "system") as handle:
            query_class = _one_statement(handle, sql)
            if query_class != "READ_ONLY":
                raise refused(f"a statement of class {query_class}; readers may read")
            word = first_word(sql)
            if word in ("DESC", "DESCRIBE", "EXISTS", "SHOW"):
                return _judge_show(sql, database)
            tree = _syntax_tree(handle, sql)
            kind = str(tree.get("type"))
            if kind not in ("SelectWithUnionQuery", "SelectIntersectExceptQuery"):
                raise refused(f"a statement of kind {kind}; readers may SELECT, SHOW TABLES, DESCRIBE and EXISTS")
            findings = check_select(tree, database, self._forbidden_names(handle))
            refuse_unbounded(self._config, findings.settings)
            if findings.maybe_tables:
                names = handle.execute("SELECT name FROM system.databases", "TSVRaw").bytes().decode().split("\n")
                for given, table in findings.maybe_tables:
                    if given in names:
                        check_table(given, table)
        self._check_analyzed(sql, tree, params, database, settings_given=bool(findings.settings))
        only_settings = bool(findings.tables) and all(table == ("system", "settings") for table in findings.tables)
        # With readonly = 1 the engine refuses a SETTINGS clause, and says of every setting that it cannot be changed.
        readonly = "2" if findings.settings or only_settings else "1"
        return Verdict(True, True, _format_name(tree), readonly)

    def _forbidden_names(self, handle: Handle) -> frozenset[str]:
        if self._forbidden is None:
            names = handle.execute("SELECT name FROM system.functions", "TSVRaw").bytes().decode()
            self._forbidden = forbidden_names(names.split("\n")[:-1])
        return self._forbidden

    def _check_analyzed(
        self, sql: str, tree: Mapping[str, Any], params: Mapping[str, str], database: str, *, settings_given: bool
    ) -> None:
        """The analyzer, which sees functions where the parser sees names, must not see more than was checked."""
        text = without_format(sql) if "format_ast" in tree else sql
        settings = {"readonly": "2" if settings_given else "1", "max_execution_time": "10", "max_threads": "1"}
        with self._engine.handle(settings, "system") as checker:
            if text != sql:
                # Cutting the FORMAT clause off is our own reading of the text; the parser must agree with it.
                shorter = _syntax_tree(checker, text)
                if _one_statement(checker, text) != "READ_ONLY" or shorter != {
                    k: v for k, v in tree.items() if k != "format_ast"
                }:
                    raise refused("the FORMAT clause stands where it cannot be told apart from the statement")
        with self._engine.handle(settings, database) as handle:
            lines = (
                handle.execute("EXPLAIN QUERY TREE run_passes = 0 " + text, "TSVRaw", params)
                .bytes()
                .decode("utf-8", "replace")
            )
        for kind, name in _TREE_NAMES.findall(lines):
            if not (function_allowed(name) or (kind == "table_function_name" and name in TABLE_FUNCTIONS)):
                raise refused(f"function {name[:80]!r}")

    def describe(self, sql: str) -> Verdict:
        """The writer's statement: how it runs. Raises ClickHouseError 62 for several statements in one request."""
        word = first_word(sql)
        if begins_with_insert(sql.encode()) or word not in _ROW_WORDS:
            with self._engine.handle() as handle:
                _one_statement(handle, sql)
            return Verdict(False, False, None)
        key = ("", sql)
        with self._lock:
            kept = self._kept.get(key)
        if isinstance(kept, Verdict):
            return kept
        with self._engine.handle() as handle:
            _one_statement(handle, sql)
            if word in ("SELECT", "WITH", "FROM", "("):
                tree = _syntax_tree(handle, sql)
                select = tree.get("type") == "SelectWithUnionQuery" and "out_file" not in tree
                verdict = Verdict(select, select, _format_name(tree))
            else:
                verdict = Verdict(True, False, trailing_format(sql))
        self._keep(key, verdict)
        return verdict


def _one_statement(handle: Handle, sql: str) -> str:
    """The class of the one statement in `sql`. Raises ClickHouseError 62."""
    query_class, count = handle.classify(sql)
    if count == 1:
        return query_class
    if count > 1:
        message = f"Syntax error (Multi-statements are not allowed): the request holds {count}, send each by itself"
        raise ClickHouseError(SYNTAX_ERROR, message)
    # It does not parse; the parser says why.
    handle.execute("SELECT formatQuerySingleLine({statement:String})", params={"statement": escape_param(sql)})
    raise ClickHouseError(SYNTAX_ERROR, "Syntax error: the statement is empty or cannot be told")


def _syntax_tree(handle: Handle, sql: str) -> dict[str, Any]:
    result = handle.execute("SELECT parseQueryToJSON({statement:String})", "RawBLOB", {"statement": escape_param(sql)})
    try:
        tree = json.loads(result.bytes())
    except RecursionError as error:
        message = "the statement is nested so deeply that its syntax tree cannot be read"
        raise ClickHouseError(BAD_ARGUMENTS, message) from error
    if not isinstance(tree, dict):
        raise ClickHouseError(BAD_ARGUMENTS, "the engine's parser returned no tree")
    return cast(dict[str, Any], tree)


def escape_param(text: str) -> str:
    """A parameter's value is read as a TabSeparated field."""
    return (
        text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )


def _judge_show(sql: str, database: str) -> Verdict:
    for pattern in _SHOWS:
        match = pattern.match(sql)
        if match is None:
            continue
        names = match.groupdict()
        given = names.get("database") or names.get("only_database")
        given = given.strip('`"') if given else None
        if table := names.get("table"):
            check_table(given or (None if database == DATABASE else database), table.strip('`"'))
        elif given not in (None, DATABASE, "system", "information_schema", "INFORMATION_SCHEMA"):
            raise refused(f"database {given[:80]!r}")
        return Verdict(True, False, trailing_format(sql))
    message = "this SHOW, DESCRIBE or EXISTS; readers may describe tables by name and list tables and columns"
    raise refused(message + ", in a text without comments")


def _format_name(tree: Mapping[str, Any]) -> str | None:
    node = tree.get("format_ast")
    return str(cast(Mapping[str, Any], node).get("name")) if isinstance(node, dict) else None
