"""The pure part: it takes ``now`` and returns what to do.

No operating system, no threads, no waiting: see the import contracts in ``pyproject.toml``.
"""
