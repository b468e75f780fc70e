"""Where the CPU of recording goes: thread CPU of each step on Loopscope's own threads, for calls with a long history.

    python benchmarks/sdk_profile.py [--kilobytes 600] [--calls 40]

Times are `time.thread_time` about the steps, so that they mean something on a busy machine too. What the SDK's
benchmark shows beyond their sum is waking up, waiting, and the hooks on the caller's thread.
"""

import argparse
import collections
import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sdk_server import serving
from sdk_worker import history

import loopscope
from loopscope._internal import backend, delivery, encoding, pipeline, redaction, span_writer, spool, transport

spent: collections.Counter[str] = collections.Counter()
times: collections.Counter[str] = collections.Counter()


def timed(owner: Any, name: str, label: str) -> None:
    """Add the thread CPU of each call of `owner.name` to `label`."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = time.thread_time()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[label] += time.thread_time() - begun  # type: ignore[assignment] - seconds
            times[label] += 1

    setattr(owner, name, wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kilobytes", type=int, default=600)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    import anthropic

    for owner, name, label in (
        (pipeline.Pipeline, "_handle", "worker: a round, all of it"),
        (span_writer.SpanWriter, "write", "worker:   a span, all of it"),
        (span_writer.SpanWriter, "_scrub", "worker:     scrubbing of bodies"),
        (redaction, "common_prefix", "worker:       comparison with the call before"),
        (redaction, "find_credentials", "worker:       search of what is new"),
        (redaction.Scrubber, "scrub_texts", "worker:     scrubbing of small texts"),
        (span_writer.SpanWriter, "_cost", "worker:     cost"),
        (encoding, "span_parts", "worker:     encoding"),
        (span_writer.SpanWriter, "_breathe", "worker:     pauses"),
        (spool.Spool, "append", "worker:     append to the spool"),
        (delivery.Exporter, "_send_markers", "exporter: markers, all of it"),
        (delivery.Exporter, "_deliver", "exporter: spans, all of it"),
        (spool.Segment, "parts", "exporter:   read from the spool, or from memory"),
        (backend, "request_parts", "exporter:   encode a request"),
        (transport.Transport, "post", "exporter:   HTTP, markers and spans"),
        (spool.Spool, "settle", "exporter:   settle in the spool"),
    ):
        timed(owner, name, label)
    with serving() as url, tempfile.TemporaryDirectory() as folder:
        loopscope.configure(agent="profile", endpoint=url, spool_dir=folder)
        client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0)
        messages: list[Any] = list(history(options.kilobytes))
        with loopscope.run("profile"):
            for number in range(-3, options.calls):
                if number == 0:  # what happens once (imports, the price list, the first look at the history) is past
                    loopscope.flush(60)
                    spent.clear()
                    times.clear()
                client.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=messages)
                messages.append({"role": "user", "content": f"and then? {number}"})
            loopscope.flush(60)
        loopscope.shutdown(5)
    for label, seconds in sorted(spent.items()):
        print(f"{label:<48}{seconds / options.calls * 1e6:>8.0f} us a call {times[label] / options.calls:>7.2f} times")


if __name__ == "__main__":
    main()
