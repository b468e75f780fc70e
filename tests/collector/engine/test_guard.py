"""Only reads for readers: what they may ask, what is refused, and that a refusal has no side effect."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECRET_TEXT = "the-file-that-nobody-may-read"

ATTACKS = [
    # files and hosts, as scalar functions, table functions, names
    "SELECT file('{secret}')",
    "SELECT file('/etc/hostname')",
    "SELECT upper(file('{secret}'))",
    "SELECT * FROM file('{secret}')",
    "SELECT * FROM file('{secret}', 'LineAsString')",
    "SELECT * FROM `{secret}`",
    'SELECT * FROM "{secret}"',
    "SELECT * FROM default.`{secret}`",
    "SELECT * FROM loopscope.`{secret}`",
    "SELECT count() FROM `/etc/passwd`",
    "SELECT 1 WHERE 'x' IN `{secret}`",
    "SELECT 1 WHERE 'x' IN default.`{secret}`",
    "SELECT 1 WHERE 'x' GLOBAL NOT IN default.`{secret}`",
    "SELECT 1 WHERE in('x', default.`{secret}`)",
    "SELECT * FROM url('http://127.0.0.1:9/x', 'LineAsString', 'x String')",
    "SELECT * FROM s3('http://127.0.0.1:9/x', 'CSV')",
    "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
    "SELECT * FROM remoteSecure('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:3306', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:5432', 'a', 'b', 'c', 'd')",
    "SELECT * FROM sqlite('{secret}', 't')",
    "SELECT * FROM executable('cat {secret}', 'TSV', 'x String')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1/x', 'CSV')",
    "SELECT * FROM fileCluster('default', '{secret}')",
    "SELECT * FROM input('x String')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM merge('.*')",
    "SELECT * FROM dictionary('d')",
    "SELECT * FROM loop(system.one)",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT * FROM Python(config)",
    "SELECT * FROM python('config')",
    "SELECT * FROM view(SELECT file('{secret}'))",
    "SELECT * FROM numbers(length(file('{secret}')))",
    "SELECT * FROM numbers((SELECT length(file('{secret}'))))",
    "SELECT * FROM values('x String', (file('{secret}')))",
    # hidden in every corner of a SELECT
    "SELECT * APPLY(file) FROM (SELECT '{secret}')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '{secret}')",
    "SELECT COLUMNS('.*') APPLY(file) FROM (SELECT '{secret}' AS a)",
    "SELECT * REPLACE (file(a) AS a) FROM (SELECT '{secret}' AS a)",
    "SELECT t.* APPLY(file) FROM (SELECT '{secret}' AS a) AS t",
    "SELECT arrayMap(x -> file(x), ['{secret}'])",
    "SELECT arrayMap(file, ['{secret}'])",
    "SELECT arrayMap(`file`, ['{secret}'])",
    "SELECT arrayMap(\"file\", ['{secret}'])",
    "SELECT arrayFilter(file, ['{secret}'])",
    "SELECT mapApply(file, map('{secret}', 1))",
    "SELECT arrayFold(file, ['{secret}'], '')",
    "WITH file AS f SELECT arrayMap(f, ['{secret}'])",
    "WITH (file AS f) AS g SELECT arrayMap(g, ['{secret}'])",
    "SELECT arrayMap(f, ['{secret}']) FROM (SELECT 1) WHERE (file AS f) IS NULL",
    "WITH (x -> file(x)) AS f SELECT f('{secret}')",
    "WITH (x -> file(x)) AS upper SELECT upper('{secret}')",
    "WITH (x -> file(x)) AS f SELECT arrayMap(f, ['{secret}'])",
    "SELECT ['{secret}'].arrayMap(file)",
    "SELECT 1 WHERE file('{secret}') != ''",
    "SELECT 1 FROM system.one PREWHERE file('{secret}') != ''",
    "SELECT 1 GROUP BY file('{secret}')",
    "SELECT 1 HAVING file('{secret}') != ''",
    "SELECT 1 ORDER BY file('{secret}')",
    "SELECT 1 LIMIT length(file('{secret}'))",
    "SELECT 1 LIMIT 1 OFFSET (SELECT length(file('{secret}')))",
    "SELECT 1 LIMIT (SELECT length(file('{secret}'))) BY 1",
    "SELECT number FROM numbers(1) QUALIFY file('{secret}') != ''",
    "SELECT sum(number) OVER (PARTITION BY file('{secret}')) FROM numbers(1)",
    "SELECT sum(number) OVER w FROM numbers(1) WINDOW w AS (ORDER BY file('{secret}'))",
    "SELECT number FROM numbers(1) ORDER BY number WITH FILL FROM length(file('{secret}'))",
    "SELECT number FROM numbers(1) ORDER BY number WITH FILL INTERPOLATE (number AS length(file('{secret}')))",
    "SELECT 1 UNION ALL SELECT length(file('{secret}'))",
    "SELECT 1 INTERSECT SELECT length(file('{secret}'))",
    "SELECT 1 EXCEPT SELECT length(file('{secret}'))",
    "WITH file('{secret}') AS x SELECT x",
    "WITH x AS (SELECT file('{secret}')) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT file('{secret}') AS a UNION ALL SELECT a FROM x WHERE 0) SELECT * FROM x",
    "SELECT (SELECT (SELECT file('{secret}')))",
    "SELECT 1 IN (SELECT file('{secret}'))",
    "SELECT exists(SELECT file('{secret}'))",
    "SELECT * FROM system.one AS a JOIN (SELECT file('{secret}') AS x) AS b ON 1 = 1",
    "SELECT * FROM system.one AS a JOIN file('{secret}') AS b ON 1 = 1",
    "SELECT * FROM system.one AS a JOIN system.one AS b ON file('{secret}') = ''",
    "SELECT * FROM system.one ARRAY JOIN [file('{secret}')] AS x",
    "SELECT count() FILTER (WHERE file('{secret}') != '') FROM system.one",
    "SELECT quantile(length(file('{secret}')))(1)",
    "SELECT CASE WHEN 1 THEN file('{secret}') END",
    "SELECT map('a', file('{secret}'))['a']",
    "SELECT (file('{secret}'), 1).1",
    "SELECT file('{secret}')::String",
    "(SELECT file('{secret}'))",
    "FROM system.one SELECT file('{secret}')",
    "SELECT file('{secret}') FORMAT JSON",
    "SELECT file('{secret}') FORMAT Null",
    "SELECT file('{secret}') SETTINGS max_threads = 1",
    "SELECT `file`('{secret}')",
    "SELECT \"file\"('{secret}')",
    "SELECT 1 AS `a\nFUNCTION id: 1, function_name: upper`, file('{secret}')",
    # writing
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' FORMAT TSV",
    "SELECT 1 INTO OUTFILE '{out}' TRUNCATE FORMAT TSV",
    "SELECT 1 INTO OUTFILE '{out}' APPEND AND STDOUT FORMAT TSV",
    "INSERT INTO loopscope.guarded VALUES (2)",
    "INSERT INTO loopscope.guarded SELECT 2",
    "INSERT INTO loopscope.guarded FORMAT TSV 2",
    "INSERT INTO FUNCTION file('{out}', 'TSV', 'x UInt8') SELECT 2",
    "WITH 2 AS x INSERT INTO loopscope.guarded SELECT x",
    "CREATE TABLE loopscope.other (x UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE other (x UInt8)",
    "CREATE DATABASE other",
    "CREATE FUNCTION other AS x -> x",
    "CREATE USER other",
    "CREATE OR REPLACE VIEW loopscope.v AS SELECT 1",
    "DROP TABLE loopscope.guarded",
    "TRUNCATE TABLE loopscope.guarded",
    "ALTER TABLE loopscope.guarded DELETE WHERE 1",
    "ALTER TABLE loopscope.guarded ADD COLUMN y UInt8",
    "DELETE FROM loopscope.guarded WHERE 1",
    "UPDATE loopscope.guarded SET x = 2 WHERE 1",
    "OPTIMIZE TABLE loopscope.guarded FINAL",
    "RENAME TABLE loopscope.guarded TO loopscope.gone",
    "EXCHANGE TABLES loopscope.guarded AND loopscope.guarded",
    "DETACH TABLE loopscope.guarded",
    "UNDROP TABLE loopscope.guarded",
    "BACKUP TABLE loopscope.guarded TO File('{out}')",
    "MOVE TABLE loopscope.guarded",
    # control
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "SYSTEM FLUSH LOGS",
    "SYSTEM DROP MARK CACHE",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "SET max_threads = 1",
    "SET readonly = 0",
    "USE default",
    "BEGIN TRANSACTION",
    "GRANT ALL ON *.* TO default",
    "SHOW GRANTS",
    "EXECUTE AS other SELECT 1",
    # several statements
    "SELECT 1; SELECT 2",
    "SELECT 1; INSERT INTO loopscope.guarded VALUES (2)",
    "SELECT 1;; DROP TABLE loopscope.guarded",
    "SELECT 1 /* ; */; DROP TABLE loopscope.guarded",
    "SELECT 1 PARALLEL WITH DROP TABLE loopscope.guarded",
    "EXPLAIN AST SELECT 1; INSERT INTO loopscope.guarded VALUES (2)",
    "EXPLAIN AST SELECT 1; SYSTEM KILL",
    # reading by way of explaining and describing
    "EXPLAIN SELECT file('{secret}')",
    "EXPLAIN PLAN SELECT file('{secret}')",
    "EXPLAIN QUERY TREE SELECT file('{secret}')",
    "EXPLAIN SYNTAX SELECT file('{secret}')",
    "EXPLAIN PIPELINE SELECT 1",
    "EXPLAIN ESTIMATE SELECT * FROM loopscope.guarded",
    "EXPLAIN SELECT 1",
    "DESCRIBE TABLE file('{secret}')",
    "DESCRIBE file('{secret}')",
    "DESCRIBE (SELECT file('{secret}'))",
    "DESCRIBE TABLE `{secret}`",
    "DESCRIBE TABLE default.`{secret}`",
    "DESC TABLE url('http://127.0.0.1:9/x')",
    "EXISTS TABLE default.`{secret}`",
    "SHOW CREATE TABLE default.`{secret}`",
    "SHOW COLUMNS FROM `{secret}`",
    "SHOW TABLES FROM default",
    "SHOW TABLES WHERE file('{secret}') != ''",
    "SHOW DATABASES WHERE file('{secret}') != ''",
    "SHOW PROCESSLIST",
    "SHOW ENGINES",
    "CHECK TABLE loopscope.guarded",
    # the engine's own matters
    "SELECT * FROM system.processes",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM system.users",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.macros",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.environment_variables",
    "SELECT 1 IN system.processes",
    "SELECT getSetting('max_threads')",
    "SELECT getServerSetting('max_connections')",
    "SELECT getMacro('x')",
    "SELECT @@version",
    "SELECT getClientHTTPHeader('X-ClickHouse-Key')",
    "SELECT FQDN()",
    "SELECT serverUUID()",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT joinGet('loopscope.guarded', 'x', 1)",
    "SELECT hasColumnInTable('127.0.0.1:9', 'a', 'b', 'c')",
    "SELECT catboostEvaluate('{secret}', 1)",
    "SELECT showCertificate()",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(3)",
    "SELECT logTrace('x')",
    "SELECT addressToLine(1)",
    "SELECT aiGenerate('x')",
    "SELECT formatRow('CSV', 1)",
    "SELECT encrypt('aes-128-ecb', 'a', '0123456789012345')",
    "SELECT a_function_nobody_knows(1)",
    # settings
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 100000",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS log_comment = 'mine'",
    "SELECT 1 SETTINGS os_threads_nice_value_query = 0",
    "SELECT 1 SETTINGS allow_introspection_functions = 1",
    "SELECT 1 SETTINGS use_query_cache = 1",
    "SELECT 1 SETTINGS additional_table_filters = {{'loopscope.guarded': '1'}}",
    "SELECT 1 SETTINGS http_make_head_request = 1",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT 1 SETTINGS param_x = 1",
    "SELECT 1 SETTINGS no_such_setting = 1",
]

UNKNOWN_TO_THE_ENGINE = [
    "SELECT arrayMap(system.file, ['{secret}'])",
    "SELECT arrayMap(default.file, ['{secret}'])",
    "SELECT arrayReduce('file', ['{secret}'])",
    "SELECT arrayReduceInRanges('file', [(1, 1)], ['{secret}'])",
    "SELECT initializeAggregation('file', '{secret}')",
]
"""Allowed as they are; the engine itself finds no such thing, which a later one may."""

ALLOWED = [
    "SELECT 1",
    "select 1 -- a comment",
    "/* first */ SELECT 1;",
    "(SELECT 1)",
    "FROM system.one SELECT 1",
    "WITH 1 AS x, y AS (SELECT 2 AS z) SELECT x, z FROM y",
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 3) SELECT * FROM r",
    "SELECT x FROM guarded",
    "SELECT x FROM loopscope.guarded",
    "SELECT x FROM `loopscope`.`guarded` WHERE x IN (1, 2) AND x IN (SELECT x FROM guarded) AND x IN guarded",
    "SELECT g.x FROM guarded AS g WHERE has([g.x], g.x) AND 1 IN [g.x]",
    (
        "SELECT sumIf(x, x > 0), countIf(x = 1), uniqExactIf(x, 1), quantilesTDigestIf(0.5, 0.9)(x, 1), "
        "avgOrNull(x) FROM guarded"
    ),
    "SELECT argMax(x, x), groupArrayIf(10)(x, 1), sumMap(map(x, x)), finalizeAggregation(sumState(x)) FROM guarded",
    (
        "SELECT toStartOfHour(now()) AS h, "
        "count() FROM guarded GROUP BY h WITH TOTALS HAVING count() > 0 ORDER BY h LIMIT 5"
    ),
    (
        "SELECT toStartOfInterval(now(), INTERVAL 5 MINUTE), now() - INTERVAL 1 DAY, dateDiff('second', "
        "now(), now()), toUnixTimestamp(now())"
    ),
    (
        "SELECT lower('A'), lowerUTF8('Ä'), position('abc', 'b'), 'abc' LIKE '%b%', match('a', 'b'), "
        "splitByChar(',', 'a,b'), substring('abc', 1, 2)"
    ),
    (
        "SELECT arrayMap(x -> x * 2, [1, 2]), arrayFilter(x -> x > 1, [1, 2]), arrayJoin([1, 2]), "
        "arraySort([2, 1]), [1, 2][1], (1, 'a').2"
    ),
    "SELECT mapKeys(map('a', 1)), map('a', 1)['a'], mapFilter((k, v) -> v > 0, map('a', 1))",
    (
        "SELECT JSONExtractString('{{\"a\": \"b\"}}', 'a'), toJSONString(map('a', 1)), "
        "simpleJSONExtractInt('{{}}', 'a'), isValidJSON('1')"
    ),
    (
        "SELECT cityHash64('a'), hex(MD5('a')), xxh3('a'), sipHash64(1), base64Encode('x'), "
        "generateUUIDv4() != generateUUIDv4()"
    ),
    (
        "SELECT round(1.5, 1), floor(1.5), sqrt(2), pow(2, 3), 7 % 3, intDiv(7, 2), toDecimal128('1.5', "
        "12), greatest(1, 2), bitAnd(1, 3)"
    ),
    (
        "SELECT if(1, 2, 3), multiIf(1, 2, 3), CASE WHEN 1 THEN 2 ELSE 3 END, coalesce(NULL, 1), nullIf(1, "
        "1), isNull(NULL), 1 ? 2 : 3"
    ),
    (
        "SELECT CAST(1 AS String), 1::UInt8, toString(1), toInt64OrNull('x'), "
        "toDateTime64('2026-01-01 00:00:00', 9), accurateCastOrNull(1, 'UInt8')"
    ),
    (
        "SELECT row_number() OVER (ORDER BY x), lagInFrame(x) OVER w, "
        "sum(x) OVER (PARTITION BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) "
        "FROM guarded WINDOW w AS (ORDER BY x)"
    ),
    "SELECT * EXCEPT (x), 1, * REPLACE (x + 1 AS x), COLUMNS('x') APPLY(toString), * APPLY(x -> x + 1) FROM guarded",
    (
        "SELECT * FROM guarded AS a LEFT JOIN guarded AS b ON a.x = b.x "
        "ASOF JOIN guarded AS c ON a.x = c.x AND a.x >= c.x"
    ),
    "SELECT x, y FROM guarded ARRAY JOIN [1, 2] AS y",
    "SELECT 1 UNION ALL SELECT 2 UNION DISTINCT SELECT 3",
    "SELECT 1 INTERSECT SELECT 1",
    "SELECT DISTINCT x FROM guarded ORDER BY x DESC NULLS LAST LIMIT 1 BY x LIMIT 5 OFFSET 0",
    "SELECT x FROM guarded GROUP BY GROUPING SETS ((x), ())",
    "SELECT number FROM numbers(3) ORDER BY number WITH FILL FROM 0 TO 5 STEP 1",
    "SELECT * FROM generateSeries(1, 3)",
    "SELECT * FROM values('a Int8, b String', (1, 'x'), (2, 'y'))",
    "SELECT * FROM view(SELECT 1)",
    "SELECT x FROM guarded SETTINGS max_threads = 1, max_execution_time = 5",
    "SELECT x FROM guarded FORMAT JSONEachRow",
    "SELECT x FROM guarded SETTINGS max_threads = 1 FORMAT JSONEachRow",
    "SELECT 'FORMAT JSON' AS format, x FROM guarded FORMAT JSON",
    "SELECT version(), timezone(), currentDatabase(), currentUser(), uptime() >= 0, toTypeName(1)",
    "SELECT name FROM system.settings LIMIT 1",
    "SELECT name, type FROM system.columns WHERE database = 'loopscope'",
    "SELECT database, name, total_rows FROM system.tables LIMIT 1",
    "SELECT sum(bytes_on_disk) FROM system.parts WHERE active",
    "SELECT table_name FROM information_schema.tables LIMIT 1",
    (
        "SELECT hasToken('a b', 'a'), hasAllTokens('a b', ['a']), multiSearchAny('a', ['a']), "
        "extractAll('a', 'a'), countSubstrings('aa', 'a')"
    ),
    "SHOW TABLES",
    "SHOW TABLES FROM loopscope LIKE 'g%'",
    "SHOW DATABASES",
    "SHOW CREATE TABLE loopscope.guarded",
    "DESCRIBE TABLE loopscope.guarded",
    "DESC guarded",
    "DESCRIBE TABLE `loopscope`.`guarded` FORMAT JSONEachRow",
    "EXISTS TABLE loopscope.guarded",
    "EXISTS loopscope.no_such_table",
]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret.csv"
    path.write_text(SECRET_TEXT + "\n", encoding="utf-8")
    return path


@pytest.fixture
def guarded(writer: Client) -> Client:
    """The writer, with a table of one row."""
    writer.command("CREATE TABLE IF NOT EXISTS loopscope.guarded (x UInt8) ENGINE = MergeTree ORDER BY x")
    if writer.command("SELECT count() FROM loopscope.guarded") == 0:
        writer.command("INSERT INTO loopscope.guarded VALUES (1)")
    return writer


def refused(reader: Client, sql: str) -> str:
    """The error a statement gives. Fails when it gives an answer, or the secret."""
    with pytest.raises(DatabaseError) as caught:
        pytest.fail(f"{sql!r} was answered: {reader.raw_query(sql)!r}")
    assert SECRET_TEXT not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_without_effect(attack: str, reader: Client, guarded: Client, secret: Path) -> None:
    out = secret.parent / "out"
    error = refused(reader, attack.format(secret=secret, out=out))
    # Refused for what it is, by the guard or the parser; not by accident, for a missing file or table.
    assert any(f"code: {code}," in error for code in (497, 164, 62, 516)), error
    assert not out.exists()
    assert guarded.query("SELECT x FROM loopscope.guarded").result_rows == [(1,)]
    assert guarded.query("SHOW TABLES FROM loopscope LIKE 'other'").result_rows == []


@pytest.mark.parametrize("attack", UNKNOWN_TO_THE_ENGINE)
def test_what_the_engine_does_not_know_stays_unknown(attack: str, reader: Client, secret: Path) -> None:
    error = refused(reader, attack.format(secret=secret))
    assert any(f"code: {code}," in error for code in (47, 63)), error


@pytest.mark.parametrize("sql", ALLOWED)
def test_analytics_is_allowed(sql: str, reader: Client, guarded: Client) -> None:
    reader.raw_query(sql.format())


def test_the_error_names_what_was_refused(reader: Client) -> None:
    assert "function 'file'" in refused(reader, "SELECT file('/etc/hostname')")
    assert "table function 'url'" in refused(reader, "SELECT * FROM url('http://127.0.0.1:9/')")
    assert "'system.processes'" in refused(reader, "SELECT * FROM system.processes")
    assert "'readonly'" in refused(reader, "SELECT 1 SETTINGS readonly = 0")


def test_settings_in_the_request_are_bounded(reader: Client, guarded: Client) -> None:
    """What a client sends along is held to the same list; limits can be lowered, not lifted."""
    assert reader.query("SELECT x FROM guarded", settings={"max_execution_time": 1000000}).result_rows == [(1,)]
    seen = "SELECT value FROM system.settings WHERE name = 'max_execution_time'"
    for asked, expected in ((1000000, "20"), (0, "20"), (3, "3")):
        assert reader.query(seen, settings={"max_execution_time": asked}).result_rows == [(expected,)]
    with pytest.raises(DatabaseError, match="allow_introspection_functions"):
        reader.query("SELECT x FROM guarded", settings={"allow_introspection_functions": 1})


def test_a_parameter_names_no_table(reader: Client, secret: Path) -> None:
    with pytest.raises(DatabaseError, match="Identifier"):
        reader.query("SELECT * FROM {t:Identifier}", parameters={"t": str(secret)})
    assert reader.query("SELECT {s:String}", parameters={"s": "file('x'); DROP"}).result_rows == [("file('x'); DROP",)]


def test_verdicts_are_for_the_whole_text(reader: Client) -> None:
    """A kept verdict must not serve a statement that only begins alike."""
    assert reader.raw_query("SELECT 1") == b"1\n"
    refused(reader, "SELECT 1, file('/etc/hostname')")
    assert reader.raw_query("SELECT 1") == b"1\n"
    refused(reader, "SELECT 1, file('/etc/hostname')")


def test_every_function_of_the_engine_was_reviewed(guarded: Client) -> None:
    """A new engine brings functions; each goes into one of the two lists by somebody's decision."""
    from importlib.resources import files

    def names(name: str) -> set[str]:
        text = (files("loopscope_collector.engine") / name).read_text("utf-8")
        return {word for line in text.splitlines() if not line.startswith("#") for word in line.split()}

    allowed, refused_names = names("functions_allowed.txt"), names("functions_refused.txt")
    known = {
        str(row[0]) for row in guarded.query("SELECT name FROM system.functions WHERE origin = 'System'").result_rows
    }
    assert known - allowed - refused_names == set()
    # The engine finds some functions in any case, so the lists must not differ by case alone.
    assert {name.lower() for name in allowed} & {name.lower() for name in refused_names} == set()


_SPACES = st.sampled_from(
    [" ", "\n", "\t", "\r\n", "  ", "/**/", "/* ' */", "-- x\n", "\f", "\v", "/* /* nested */ */ "]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """An attack with other blanks, comments and capitals."""
    text = draw(st.sampled_from([attack for attack in ATTACKS if "\n" not in attack]))
    parts = text.split(" ")
    words = [
        draw(st.sampled_from([part, part.upper(), part.lower()])) if part.isalpha() and "'" not in part else part
        for part in parts
    ]
    return "".join(word + (draw(_SPACES) if index < len(words) - 1 else "") for index, word in enumerate(words))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attack=mutated(),
    prefix=st.sampled_from(["", " ", "\n", "/* x */", "-- x\n"]),
    suffix=st.sampled_from(["", ";", " ", "\n;\n", " -- x"]),
)
def test_mutated_attacks_do_nothing(
    attack: str, prefix: str, suffix: str, reader: Client, guarded: Client, secret: Path
) -> None:
    """Blanks, comments and capitals change nothing: no file is read or made, no row is written."""
    out = secret.parent / "out"
    refused(reader, prefix + attack.format(secret=secret, out=out) + suffix)
    assert not out.exists()
    assert guarded.query("SELECT x FROM loopscope.guarded").result_rows == [(1,)]
