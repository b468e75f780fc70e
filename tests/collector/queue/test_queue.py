"""The queue in normal and in bad times: order, bounds, sealing, a disk that refuses, dead letters."""

import errno
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loopscope_collector.metrics import Metrics
from loopscope_collector.queue import (
    DurableQueue,
    QueueFullError,
    QueueHeldError,
    QueueUnavailableError,
    Record,
)
from loopscope_collector.queue.dead_letters import read_dead_letter
from loopscope_collector.queue.files import Files
from loopscope_collector.queue.records import framed_bytes

MIB = 1 << 20


def record(number: int, size: int = 10) -> Record:
    return Record("traces", "protobuf", number, b"%d:" % number + b"x" * size)


def take_all(queue: DurableQueue) -> list[Record]:
    taken: list[Record] = []
    while not queue.is_empty:
        segment = queue.next_sealed(timeout=10)
        assert segment is not None
        taken += segment.records()
        queue.done(segment)
    return taken


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DurableQueue]:
    queue = DurableQueue(tmp_path, max_bytes=MIB, segment_max_bytes=100_000, segment_max_age_seconds=0.01)
    yield queue
    queue.close()


def test_records_come_back_in_order_from_many_senders(queue: DurableQueue) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(queue.append, map(record, range(400))))
    taken = take_all(queue)
    assert sorted(item.received_at for item in taken) == list(range(400))
    assert all(item == record(item.received_at) for item in taken)


def test_an_idle_queue_gives_nothing(queue: DurableQueue) -> None:
    assert queue.next_sealed(timeout=0.05) is None
    assert queue.is_empty


def test_a_lone_record_is_sealed_by_age(queue: DurableQueue) -> None:
    queue.append(record(1))
    segment = queue.next_sealed(timeout=10)
    assert segment is not None
    assert [item.received_at for item in segment.records()] == [1]


def test_while_nobody_takes_a_segment_grows_to_its_size(queue: DurableQueue) -> None:
    for number in range(30):
        queue.append(record(number, size=1000))
    segment = queue.next_sealed(timeout=10)
    assert segment is not None
    assert [item.received_at for item in segment.records()] == list(range(30))


def test_a_segment_is_sealed_by_size(queue: DurableQueue) -> None:
    for number in range(25):
        queue.append(record(number, size=10_000))
    first = queue.next_sealed(timeout=10)
    assert first is not None
    assert 100_000 <= first.length < 100_000 + framed_bytes(record(24, size=10_000))


def test_the_bound_on_bytes_refuses_at_once_and_room_comes_back(queue: DurableQueue) -> None:
    with pytest.raises(QueueFullError, match=r"queue holds 0 bytes of at most 1048576"):
        queue.submit(record(0, size=MIB))
    queue.append(record(1, size=MIB - 100))
    with pytest.raises(QueueFullError):
        queue.submit(record(2, size=100))
    take_all(queue)
    queue.append(record(3, size=100))
    assert [item.received_at for item in take_all(queue)] == [3]


def test_segments_are_done_in_order_only(queue: DurableQueue) -> None:
    queue.append(record(1, size=100_000))
    queue.append(record(2, size=100_000))
    first = queue.next_sealed(timeout=10)
    assert first is not None
    queue.done(first)
    with pytest.raises(ValueError, match="not the oldest"):
        queue.done(first)


def test_one_process_holds_the_directory(queue: DurableQueue, tmp_path: Path) -> None:
    with pytest.raises(QueueHeldError, match="in use by another collector"):
        DurableQueue(tmp_path, max_bytes=MIB)


def test_closing_the_intake_seals_what_is_there_and_refuses_the_rest(queue: DurableQueue) -> None:
    queue.append(record(1))
    queue.close_intake()
    with pytest.raises(QueueUnavailableError, match="shutting down"):
        queue.append(record(2))
    assert [item.received_at for item in take_all(queue)] == [1]


def test_files_are_for_their_owner_alone(queue: DurableQueue, tmp_path: Path) -> None:
    queue.append(record(1))
    queue.set_aside("00000000000000000001-00000000", record(2), "a reason")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


class FaultyFiles(Files):
    """Fails the operations named, as a full or broken disk does."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.written_before_failing: int | None = None

    def _maybe(self, operation: str) -> None:
        if operation in self.failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    def create(self, path: Path) -> int:
        self._maybe("create")
        return super().create(path)

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
        if "write" in self.failing:
            super().write(descriptor, [b"".join(pieces)[: self.written_before_failing]])
        self._maybe("write")
        super().write(descriptor, pieces)

    def sync(self, descriptor: int) -> None:
        self._maybe("sync")
        super().sync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        self._maybe("truncate")
        super().truncate(descriptor, length)

    def rename(self, path: Path, to: Path) -> None:
        self._maybe("rename")
        super().rename(path, to)
        self._maybe("sync_after_rename")


@pytest.mark.parametrize(
    "failing",
    [{"create"}, {"write"}, {"sync"}, {"write", "truncate"}, {"sync", "truncate"}, {"write", "truncate", "rename"}],
    ids=lambda failing: "+".join(sorted(failing)),
)
@pytest.mark.parametrize("earlier", [True, False], ids=["later", "first"])
def test_a_full_disk_refuses_new_records_and_loses_no_old_one(tmp_path: Path, failing: set[str], earlier: bool) -> None:
    files, metrics = FaultyFiles(), Metrics()
    files.written_before_failing = 17
    queue = DurableQueue(
        tmp_path,
        max_bytes=MIB,
        segment_max_bytes=100_000 if failing == {"create"} else MIB,
        segment_max_age_seconds=0.01,
        files=files,
        metrics=metrics,
    )
    kept: list[int] = []
    if earlier:
        queue.append(record(1, size=200_000))
        kept.append(1)
    files.failing = failing
    for number in (2, 3):
        with pytest.raises(QueueUnavailableError, match=r"took no record: (No space left|an earlier write failed)"):
            queue.append(record(number))
    files.failing = set()
    queue.append(record(4))
    kept.append(4)
    assert [item.received_at for item in take_all(queue)] == kept
    assert metrics.value("queue_commit_errors") == 2
    queue.close()
    reopened = DurableQueue(tmp_path, max_bytes=MIB)
    assert reopened.is_empty
    reopened.close()


@pytest.mark.parametrize("failing", ["rename", "sync_after_rename"])
def test_a_segment_that_cannot_be_sealed_is_tried_again(tmp_path: Path, failing: str) -> None:
    files, metrics = FaultyFiles(), Metrics()
    queue = DurableQueue(tmp_path, max_bytes=MIB, segment_max_age_seconds=0.01, files=files, metrics=metrics)
    queue.append(record(1))
    files.failing = {failing}
    assert queue.next_sealed(timeout=0.3) is None
    assert metrics.value("queue_seal_errors") >= 1
    files.failing = set()
    queue.append(record(2))
    assert [item.received_at for item in take_all(queue)] == [1, 2]
    queue.close()


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    metrics = Metrics()
    queue = DurableQueue(tmp_path, max_bytes=MIB, segment_max_age_seconds=0.01, metrics=metrics)
    for number in range(3):
        queue.append(record(number, size=500))
    segment = queue.next_sealed(timeout=10)
    assert segment is not None
    with segment.path.open("r+b") as file:
        file.seek(framed_bytes(record(0, size=500)) + 100)
        file.write(b"damage")
    assert [item.received_at for item in segment.records()] == [0, 2]
    assert metrics.value("queue_damaged_bytes") == framed_bytes(record(1, size=500))
    queue.close()


def test_a_dead_letter_is_kept_once_with_its_reason(queue: DurableQueue, tmp_path: Path) -> None:
    bad = record(7)
    for _ in range(2):
        queue.set_aside("00000000000000000001-00000000", bad, "no such column")
    (path,) = (tmp_path / "dead-letters").iterdir()
    head, body = read_dead_letter(path)
    assert body == bad.body
    assert (head["reason"], head["received_at"], head["kind"]) == ("no such column", 7, "traces")


def test_dead_letters_are_bounded_and_what_gives_way_is_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    queue = DurableQueue(tmp_path, max_bytes=MIB, dead_letter_max_bytes=5000, metrics=metrics)
    for number in range(5):
        queue.set_aside(f"{number:020d}-00000000", record(number, size=1500), "bad")
    left = sorted(path.name[:20] for path in (tmp_path / "dead-letters").iterdir())
    assert left == [f"{number:020d}" for number in (3, 4)] or left == [f"{number:020d}" for number in (2, 3, 4)]
    assert metrics.value("dead_letters_dropped") == 5 - len(left)
    queue.close()


def test_waiting_takers_wake_when_a_segment_is_there(queue: DurableQueue) -> None:
    got: list[int] = []
    started = threading.Event()

    def take() -> None:
        started.set()
        segment = queue.next_sealed(timeout=30)
        assert segment is not None
        got.extend(item.received_at for item in segment.records())

    thread = threading.Thread(target=take)
    thread.start()
    started.wait(10)
    queue.append(record(9))
    thread.join(30)
    assert got == [9]
