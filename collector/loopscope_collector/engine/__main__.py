"""`python -m loopscope_collector.engine`: the engine child. Started by `process.EngineProcess`, not by hand."""

import sys
from typing import Any, cast

if __name__ == "__main__":
    # chDB's Python side loads pyarrow when it can: 0.4 s of each start, and nothing here uses it.
    sys.modules.setdefault("pyarrow", cast(Any, None))

    from loopscope_collector.engine.child import main

    raise SystemExit(main())
