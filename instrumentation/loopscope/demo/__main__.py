"""`python -m loopscope.demo`: the demo against a collector that is already up."""

import sys

from loopscope.demo.run import main

if __name__ == "__main__":  # the processes of the scenes import the main module again
    sys.exit(main())
