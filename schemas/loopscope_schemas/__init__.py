"""The contract that the rooms share: attribute names, row types, content blocks, prices, migrations.

Everything in this package is importable by every other room and imports none of them. It has no dependency at import
time beyond the standard library, so that an agent's process stays light.
"""
