"""`python -m loopscope.cli`: the same as the `loopscope` script."""

from loopscope.cli import main

main()
