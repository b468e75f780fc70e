"""`python -m loopscope.demo`: the demo against a collector that is already up."""

import sys

from loopscope.demo.run import main

sys.exit(main())
