"""Hostile input: what every format keeps whatever bytes arrive. `python -m tests.fuzz` searches on for longer."""
