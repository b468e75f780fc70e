"""`python -m loopscope_collector.engine`: the engine child. Started by `process.EngineProcess`, not by hand."""

from loopscope_collector.engine.child import main

if __name__ == "__main__":
    raise SystemExit(main())
