"""The demo: small real agents that drive the real SDK against the Messages API stand-in.

`loopscope.demo.run.main` runs them all; `compare` checks what was recorded against `expected.yml`.
"""
