"""The collector: OTLP in, durable queue, normalising, ClickHouse.

`loopscope up` builds `settings.CollectorSettings` and calls `process.run_collector`. Importing this package loads
none of its parts.
"""
