"""Our own benchmark of a whole server: `python3 dev.py bench`. What the figures mean is in docs/benchmarks.md."""
