"""
Look for a script on which people, processes and database do not agree in the end, for as long as there is time.

`python -m tests.soak.convergence --minutes 10`; a failure prints the shortest script that shows it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crdt.convergence import explore

_ROUND = 200


def main() -> int:
    """Play new scripts until the time is over; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.convergence", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (at least one round)")
    minutes = parser.parse_args().minutes
    begun, played = time.monotonic(), 0
    while not played or time.monotonic() - begun < 60 * minutes:
        with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as folder:
            explore(f"sqlite+aiosqlite:///{Path(folder) / 'darkroom.db'}", processes=1, examples=_ROUND, again=False)
        played += _ROUND
        sys.stdout.write(f"{played} scripts in {time.monotonic() - begun:.0f} s: all agree\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
