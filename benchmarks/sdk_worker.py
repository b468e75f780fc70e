"""One recorder's process in the SDK's benchmark: does blocks of real anthropic calls, recorded or not, as it is told.

Started by `sdk_overhead` with the Python of the recorder's own environment, so it imports nothing but the standard
library, anthropic and, by name, what is measured (`sdk_recorders`). Reads one JSON command a line, answers with one
line. With `--start` it only prints how many milliseconds import and configuration take beyond `import anthropic`.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

WORDS = "the customer asked whether the refund of order 4711 was already on its way, and the tool says it is not; "
TICK_SECONDS = 0.001


def history(kilobytes: int) -> list[dict[str, str]]:
    """Messages of about this many KB of JSON in all, 2 KB each, no two alike."""
    text = (WORDS * 20)[:2000]
    count = max(round(kilobytes * 1000 / 2050), 1)
    return [
        {"role": "user" if index % 2 == 0 else "assistant", "content": f"{index}: {text}"} for index in range(count)
    ]


class Worker:
    def __init__(self, recorder: Any, url: str) -> None:
        import anthropic

        self.recorder = recorder
        self.url = url
        self.anthropic = anthropic
        self.sync_client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0)

    def block(
        self, *, on: bool, kilobytes: int, calls: int, is_async: bool, stream: bool, ticks: bool = False
    ) -> dict[str, Any]:
        """Calls of one run whose history grows by a message each; microseconds a call, and the event loop's lag."""
        (self.recorder.on if on else self.recorder.off)()
        messages: list[Any] = list(history(kilobytes))
        gc.collect()
        lags: list[float] = []
        cpu = time.process_time()
        with self.recorder.run() if on else _Nothing():
            if is_async:
                wall, own = asyncio.run(
                    self._async_calls(messages, calls, on=on, stream=stream, lags=lags, ticks=ticks)
                )
            else:
                wall, own = self._calls(messages, calls, on=on, stream=stream)
        if on:
            self.recorder.flush()
        cpu = time.process_time() - cpu
        lags.sort()
        return {
            "wall_us": wall / calls * 1e6,
            "own_us": own / calls * 1e6,
            "cpu_us": cpu / calls * 1e6,
            "lag_p50_us": _at(lags, 0.5) * 1e6,
            "lag_p99_us": _at(lags, 0.99) * 1e6,
            "lag_max_us": _at(lags, 1.0) * 1e6,
        }

    def _calls(self, messages: list[Any], calls: int, *, on: bool, stream: bool) -> tuple[float, float]:
        client = self.recorder.client(self.sync_client) if on else self.sync_client
        create: Any = self.recorder.create(client) if on else client.messages.create
        wall = own = 0.0
        for number in range(calls):
            begun, own_begun = time.perf_counter(), time.thread_time()
            answer = create(model="claude-sonnet-4-6", max_tokens=100, messages=messages, **_streaming(stream))
            if stream:
                for _ in answer:
                    pass
            wall += time.perf_counter() - begun
            own += time.thread_time() - own_begun
            messages.append({"role": "user", "content": f"and then? {number}"})
        return wall, own

    async def _async_calls(
        self, messages: list[Any], calls: int, *, on: bool, stream: bool, lags: list[float], ticks: bool
    ) -> tuple[float, float]:
        ticker = asyncio.create_task(_tick(lags)) if ticks else None
        async with self.anthropic.AsyncAnthropic(api_key="k", base_url=self.url, max_retries=0) as plain:
            client = self.recorder.client(plain) if on else plain
            create: Any = self.recorder.create_async(client) if on else client.messages.create
            begun, own_begun = time.perf_counter(), time.thread_time()
            for number in range(calls):
                answer = await create(
                    model="claude-sonnet-4-6", max_tokens=100, messages=messages, **_streaming(stream)
                )
                if stream:
                    async for _ in answer:
                        pass
                messages.append({"role": "user", "content": f"and then? {number}"})
            wall, own = time.perf_counter() - begun, time.thread_time() - own_begun
        if ticker is not None:
            # What records goes on for a moment after the last call; the loop must not feel that either.
            await asyncio.sleep(0.2)
            ticker.cancel()
        return wall, own


def _streaming(stream: bool) -> dict[str, Any]:
    return {"stream": True} if stream else {}


async def _tick(lags: list[float]) -> None:
    """How much later than asked the event loop comes back, again and again."""
    while True:
        due = time.perf_counter() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        lags.append(max(time.perf_counter() - due, 0.0))


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def main() -> None:
    name, url, folder = sys.argv[1:4]
    import anthropic  # noqa: F401  # pyright: ignore[reportUnusedImport] - every agent has it; what follows is added

    begun = time.perf_counter()
    from sdk_recorders import RECORDERS  # pyright: ignore[reportMissingImports] - beside this file

    recorder: Any = RECORDERS[name](url, folder)
    started = (time.perf_counter() - begun) * 1e3
    if "--start" in sys.argv:
        print(json.dumps({"start_ms": started}), flush=True)
        recorder.close()
        return
    worker = Worker(recorder, url)
    print(json.dumps({"versions": recorder.versions()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.block(**json.loads(line))), flush=True)
    recorder.close()


if __name__ == "__main__":
    main()
