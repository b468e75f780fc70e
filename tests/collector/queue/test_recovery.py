"""Whatever happens to the process, what was acknowledged comes back, once, in order, cut in the same way."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope_collector.queue import DurableQueue, Record, Segment
from loopscope_collector.queue.records import frame

bodies = st.one_of(st.binary(max_size=200), st.just(b""), st.just(b"LSQ1" * 9), st.binary(min_size=3000, max_size=4000))
records = st.builds(
    Record,
    kind=st.sampled_from(["traces", "starts"]),
    encoding=st.just("protobuf"),
    received_at=st.integers(0, 2**64 - 1),
    body=bodies,
)

LARGE = 1 << 30


def open_queue(directory: Path, segment_max_bytes: int = 2000) -> DurableQueue:
    return DurableQueue(directory, max_bytes=LARGE, segment_max_bytes=segment_max_bytes, segment_max_age_seconds=0.001)


def take_all(queue: DurableQueue) -> list[tuple[Segment, list[Record]]]:
    """Every segment with its records, done one by one."""
    taken: list[tuple[Segment, list[Record]]] = []
    while not queue.is_empty:
        segment = queue.next_sealed(timeout=10)
        assert segment is not None, "there are bytes in the queue, but no segment came"
        taken.append((segment, list(segment.records())))
        queue.done(segment)
    return taken


append_some = st.lists(records, min_size=1, max_size=5).map(lambda batch: ("append", batch))
take = st.tuples(st.just("take"), st.none())
replay = st.tuples(st.just("replay"), st.none())
crash = st.tuples(st.just("crash"), st.tuples(st.lists(records, max_size=3), st.integers(0, 10_000)))


@given(st.lists(st.one_of(append_some, take, replay, crash), max_size=12))
@settings(max_examples=60)
def test_any_history_of_appends_and_crashes_gives_back_what_was_acknowledged(
    history: list[tuple[str, object]],
) -> None:
    """A crash leaves any prefix of what was being written behind the acknowledged bytes."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        queue = open_queue(directory)
        kept: list[Record] = []
        for step, what in history:
            if step == "append":
                assert isinstance(what, list)
                for record in what:
                    queue.append(record)
                kept += what
            elif step == "take" and kept:
                segment = queue.next_sealed(timeout=10)
                assert segment is not None
                got = list(segment.records())
                assert got == kept[: len(got)]
                assert got
                queue.done(segment)
                del kept[: len(got)]
            elif step == "replay" and kept:
                first, again = queue.next_sealed(timeout=10), queue.next_sealed(timeout=10)
                assert first == again
                assert first is not None
                queue.close()
                queue = open_queue(directory)
                after = queue.next_sealed(timeout=10)
                assert after == first
                assert after is not None
                assert list(after.records()) == list(first.records())
            elif step == "crash":
                assert isinstance(what, tuple)
                unacknowledged, cut = what
                queue.close()
                kept += crash_while_writing(directory, unacknowledged, cut)
                queue = open_queue(directory)
        assert [record for _, got in take_all(queue) for record in got] == kept
        queue.close()


def crash_while_writing(directory: Path, unacknowledged: list[Record], cut: int) -> list[Record]:
    """Append the first `cut` bytes of some frames to the open segment; returns the records that are whole in it."""
    opened = sorted((directory / "segments").glob("*.open"))
    if not opened:
        return []
    data = b"".join(b"".join(frame(record)) for record in unacknowledged)[:cut]
    with opened[-1].open("ab") as file:
        file.write(data)
    whole: list[Record] = []
    for record in unacknowledged:
        size = sum(len(piece) for piece in frame(record))
        if size > len(data):
            break
        data = data[size:]
        whole.append(record)
    return whole


@given(st.lists(records, min_size=1, max_size=6), st.data())
@settings(max_examples=60)
def test_an_open_segment_cut_anywhere_gives_the_records_before_the_cut(
    batch: list[Record], data: st.DataObject
) -> None:
    """Also when the cut goes through what was acknowledged, nothing is invented and the order stays."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        queue = open_queue(directory, segment_max_bytes=LARGE)
        for record in batch:
            queue.append(record)
        queue.close()
        (path,) = (directory / "segments").glob("*.open")
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        whole: list[Record] = []
        for record in batch:
            cut -= sum(len(piece) for piece in frame(record))
            if cut < 0:
                break
            whole.append(record)
        queue = open_queue(directory)
        assert [record for _, got in take_all(queue) for record in got] == whole
        queue.close()


def test_ids_sort_by_age_and_never_repeat_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    times = iter([5_000, 4_000, 3_000, 2_000, 1_000])
    ids: list[str] = []
    for _ in range(3):
        queue = DurableQueue(
            tmp_path, max_bytes=LARGE, segment_max_bytes=1, segment_max_age_seconds=0.001, clock=lambda: next(times)
        )
        queue.append(Record("traces", "protobuf", 1, b"x"))
        segment = queue.next_sealed(timeout=10)
        assert segment is not None
        queue.close()
        ids = [path.name.partition(".")[0] for path in sorted((tmp_path / "segments").iterdir())]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)


WRITER = """
import sys, time
from pathlib import Path
from loopscope_collector.queue import DurableQueue, Record
queue = DurableQueue(Path(sys.argv[1]), max_bytes=1 << 30, segment_max_bytes=20_000)
number = 0
while True:
    queue.append(Record("traces", "protobuf", number, b"%d " % number + b"x" * (number % 5000)))
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A real process, killed in the middle of its writing, three times over one directory."""
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged = -1
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= 200:
                break
        child.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
        child.wait()
        child.stdout.close()
        queue = open_queue(tmp_path)
        numbers = [record.received_at for _, got in take_all(queue) for record in got]
        queue.close()
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= acknowledged + 1
