"""What the engine child is told at its start, and the bounds it keeps.

Made by `process.EngineProcess`, sent to the child as one JSON line through its standard input (secrets must not
stand on a command line, where every user of the machine reads them), read by `__main__`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

WRITER_USER = "loopscope_writer"
"""The one user who may write; its password is the secret of this start."""

DATABASE = "loopscope"
"""The database of Loopscope, and the current database of every connection that names none."""

MIB = 1024 * 1024


def words(text: str) -> frozenset[str]:
    """The words of a text: how the engine's lists of names are written down."""
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of the engine child. Sizes are bytes, times are seconds."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8123
    write_secret: str = ""
    read_keys: Sequence[str] = ()
    parallel_reads: int = 4
    """Reads of readers at once; the next ones wait. More would take the cores away from inserts."""
    parallel_writes: int = 4
    """Statements of the writer at once, its own reads included, in lanes that readers never take."""
    read_queue_seconds: float = 15.0
    """How long a read waits for a free place before it is refused with code 202."""
    write_queue_seconds: float = 120.0
    reader_threads: int = max(1, (os.cpu_count() or 2) // 2)
    """`max_threads` of a reader's query unless it asks for another number."""
    reader_nice: int = 10
    """Priority of readers' threads below that of inserts. 19 starves them for seconds when other programs are busy."""
    reader_max_seconds: float = 60.0
    reader_max_memory_bytes: int = 1024 * MIB
    reader_max_result_bytes: int = 64 * MIB
    """Bound on answers in formats that must be built whole (JSON, Parquet, Pretty ...), as measured in the Native
    format. Streamed formats have no bound."""
    memory_limit_bytes: int = 2048 * MIB
    """Resident memory above which the parent drains and restarts the child."""

    def to_json(self) -> str:
        values = asdict(self)
        values["data_dir"] = str(self.data_dir)
        values["read_keys"] = list(self.read_keys)
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str) -> Self:
        values: dict[str, Any] = json.loads(line)
        values["data_dir"] = Path(values["data_dir"])
        values["read_keys"] = tuple(values["read_keys"])
        return cls(**values)
