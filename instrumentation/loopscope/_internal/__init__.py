"""Everything private to `import loopscope`: import from `loopscope` itself; what is in here may move at any time."""
