"""Search over distinct messages of 3.1 KB each: p50 and p95 over words, phrases, ids, partial words and absent text.

    .venv/bin/python -m benchmarks.search [--messages 1000000] [--json]

The texts have a skewed vocabulary of 50,000 words and an id of their own each; the searches are those of the Runs
page, through the reader's door and its checks.
"""

import argparse
import datetime as dt
import hashlib
import json
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
import numpy as np
import pyarrow as pa

from loopscope_collector.engine import WRITER_USER, EngineProcess
from loopscope_dashboards.queries.search import needle_of
from loopscope_schemas import migrate

WORDS_IN_A_MESSAGE: Final = 430
VOCABULARY: Final = 50_000
CHUNK: Final = 20_000
MESSAGES_IN_A_TRACE: Final = 25
REPEATS: Final = 5


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Fill a fresh store, search, print a table (or JSON), and return the figures (milliseconds)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="loopscope-bench-") as folder:
        figures = _measure(Path(folder), options.messages)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<42} {value}")
    return figures


def _measure(folder: Path, messages: int) -> dict[str, Any]:
    secret = secrets.token_hex(16)
    engine = EngineProcess(folder / "store", port=0, write_secret=secret)
    engine.start()
    try:
        address = urlsplit(engine.read_url)
        writer = clickhouse_connect.get_client(
            host=address.hostname, port=address.port or 0, username=WRITER_USER, password=secret,
            send_receive_timeout=600,
        )  # fmt: skip
        migrate.apply(lambda sql: writer.query(sql).result_rows, writer.command, migrate.Target())
        started = time.perf_counter()
        _fill(writer, messages)
        seconds = time.perf_counter() - started
        size = writer.query(
            "SELECT sum(data_uncompressed_bytes), sum(bytes_on_disk) FROM system.parts "
            "WHERE active AND table = 'messages_data'"
        ).result_rows[0]
        reader = clickhouse_connect.get_client(host=address.hostname, port=address.port or 0, database="loopscope")
        figures: dict[str, Any] = {
            "messages": messages,
            "text_gb": round(size[0] / 1e9, 2),
            "stored_gb": round(size[1] / 1e9, 2),
            "filled_s": round(seconds, 1),
        }
        every: list[float] = []
        for kind, needles in _needles(reader).items():
            times = [_search(reader, needle) for needle in needles for _ in range(REPEATS)]
            every += times
            figures[f"{kind}_p50_ms"] = round(statistics.median(times), 1)
        every.sort()
        figures["all_p50_ms"] = round(statistics.median(every), 1)
        figures["all_p95_ms"] = round(every[int(len(every) * 0.95)], 1)
        return figures
    finally:
        engine.stop()


def _fill(writer: Any, messages: int) -> None:
    chance = np.random.default_rng(7)
    letters = np.array(list("abcdefghijklmnoprstuvwyz"))
    words = np.array(
        sorted({"".join(chance.choice(letters, size)) for size in chance.integers(2, 12, VOCABULARY)}), dtype=object
    )
    now = time.time_ns()
    today = dt.datetime.now(dt.UTC).date()
    for first in range(0, messages, CHUNK):
        count = min(CHUNK, messages - first)
        # The square skews towards a few words, as language does.
        picks = (chance.random((count, WORDS_IN_A_MESSAGE)) ** 2 * len(words)).astype(np.int64)
        bodies = [
            f"{' '.join(words[row])}. Reference {hashlib.md5(str(first + place).encode()).hexdigest()} closed."
            for place, row in enumerate(picks)
        ]
        numbers = range(first, first + count)
        traces = [hashlib.md5(b"%d" % (number // MESSAGES_IN_A_TRACE)).hexdigest() for number in numbers]
        table = pa.table(
            {
                "day": pa.array([today] * count, pa.date32()),
                "trace_id": traces,
                "hash": pa.array([number.to_bytes(16, "big") for number in numbers], pa.binary(16)),
                "role": ["user"] * count,
                "kind": ["text"] * count,
                "source": ["user"] * count,
                "first_seen_at": pa.array(
                    [now - (messages - number) * 1_000_000 for number in numbers], pa.timestamp("ns", "UTC")
                ),
                "bytes": pa.array([len(body) for body in bodies], pa.uint64()),
                "body": bodies,
            }
        )
        writer.insert_arrow("loopscope.messages_data", table)


def _needles(reader: Any) -> dict[str, list[str]]:
    chance = random.Random(7)
    rows = reader.query("SELECT body FROM messages ORDER BY hash LIMIT 40").result_rows
    texts = [str(row[0]).split(" ") for row in chance.sample(rows, 8)]
    middles = [text[len(text) // 2 : len(text) // 2 + 5] for text in texts]
    return {
        "word": [words[2] for words in middles],
        "phrase": [" ".join(words) for words in middles],
        "id": [text[-2] for text in texts],
        "id_prefix": [text[-2][:12] for text in texts],
        "partial_both_ends": [" ".join([words[0][-3:], *words[1:4], words[4][:3]]) for words in middles],
        "partial_word": [words[1][1:] + " " + words[2][:-1] for words in middles],
        "absent_word": ["zyzzyva8812", "quokkaesque77"],
        "absent_phrase": ["not eligible for a refund", "we will escalate this to the minister"],
    }


def _search(reader: Any, typed: str) -> float:
    needle = needle_of(typed)
    assert needle is not None
    started = time.perf_counter()
    reader.query(
        f"SELECT trace_id, max(first_seen_at) AS at FROM messages WHERE {needle.condition} "  # fixed parts
        "GROUP BY trace_id ORDER BY at DESC LIMIT 50",
        parameters=needle.parameters,
    )
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
