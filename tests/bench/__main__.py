"""
Measure a server of this checkout, started for each scenario anew, on this machine.

The unit of fan-out is a raw echo server in the same run: its CPU per delivery is 1. Every process is started here and
ended here; nothing leaves the loopback interface.
"""

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from tests.bench.load import SCENARIOS
from tests.bench.target import Figures, Target
from tests.support.processes import LOOPBACK, PRODUCT_VARIABLE, ROOT, free_port, spawn, stop
from tests.support.server import ServerProcess

OURS, ECHO = "darkroom", "echo"
DEFAULT = ("fan-50x5", "fan-200", "aware-50", "aware-200", "join-1k", "join-10k", "slow", "clicks", "runs", "webhooks")
LIMIT_S = 90.0
"""No scenario takes longer; one that does has failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen scenarios and print one table; the exit code."""
    signal.signal(signal.SIGTERM, _leave)
    options = _parser().parse_args(arguments)
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        sys.stderr.write(f"bench: no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}\n")
        return 2
    begun, rows, failed = time.monotonic(), [], []
    for name in options.scenarios or DEFAULT:
        for number in range(options.rounds):
            for server in _servers(name, number):
                _say(f"{name}: {server}, round {number + 1} of {options.rounds} ({time.monotonic() - begun:.0f} s)")
                try:
                    rows.append({"scenario": name, "round": number, "server": server, "figures": _run(name, server)})
                except BenchError as error:
                    failed.append(name)
                    _say(f"{name}: {server} failed: {error}")
    _say(f"done after {time.monotonic() - begun:.0f} s on {_machine()}")
    sys.stdout.write("\n" + "\n".join(_table(rows)) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
    return 1 if failed else 0


class BenchError(Exception):
    """A scenario did not come to its end; the text says what was seen."""


def _servers(name: str, number: int) -> list[str]:
    """Who is measured, in turns: the first of a round is not always the same."""
    servers = [OURS, ECHO] if SCENARIOS[name].against_echo else [OURS]
    return servers[::-1] if number % 2 else servers


def _run(name: str, server: str) -> Figures:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        started = _ours(Path(folder), name) if server == OURS else _echo(Path(folder))
        with started as target:
            return _load(name, target, Path(folder))


def _load(name: str, target: Target, folder: Path) -> Figures:
    errors = folder / "load.log"
    command = [sys.executable, "-m", "tests.bench.load", name, json.dumps(asdict(target))]
    child = spawn(command, log=errors, env=_environment(), cwd=ROOT, pipes=True)
    try:
        printed, _ = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"no end after {LIMIT_S:.0f} s") from None
    finally:
        stop(child, signal.SIGKILL)
    if child.returncode != 0:
        raise BenchError(f"exit code {child.returncode}; it said:\n{errors.read_text(errors='replace')[-2000:]}")
    figures: Figures = json.loads(printed)
    return figures


@contextmanager
def _ours(folder: Path, name: str) -> Iterator[Target]:
    env = {"DARKROOM_LOG_LEVEL": "warning", **SCENARIOS[name].env}
    server = ServerProcess(folder / "data", env=env)
    server.module = SCENARIOS[name].module
    server.start_now()
    try:
        yield Target(server.ws_url, server.url, server.pid, raw=False)
    finally:
        server.stop()


@contextmanager
def _echo(folder: Path) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.echo", str(port)]
    process = spawn(command, log=folder / "echo.log", env=_environment(), cwd=ROOT)
    try:
        _await_port(port)
        yield Target(f"ws://{LOOPBACK}:{port}", "", process.pid, raw=True)
    finally:
        stop(process, signal.SIGTERM)


def _await_port(port: int) -> None:
    import socket  # noqa: PLC0415

    for _ in range(500):
        try:
            socket.create_connection((LOOPBACK, port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError("the echo server did not start")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not PRODUCT_VARIABLE.fullmatch(name)}


def _table(rows: list[dict[str, object]]) -> list[str]:
    """Medians over the rounds, as a Markdown table."""
    lines = ["| scenario | figure | darkroom | echo | ratio |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(str(row["scenario"]) for row in rows):
        ours, echo = _medians(rows, name, OURS), _medians(rows, name, ECHO)
        for figure, value in ours.items():
            unit = echo.get(figure, math.nan)
            ratio = value / unit if figure.startswith("CPU us") and unit else math.nan
            lines.append(f"| {name} | {figure} | {_text(value)} | {_text(unit)} | {_text(ratio)} |")
    return lines


def _medians(rows: list[dict[str, object]], name: str, server: str) -> Figures:
    found = [row["figures"] for row in rows if row["scenario"] == name and row["server"] == server]
    rounds = [figures for figures in found if isinstance(figures, dict)]
    return {key: statistics.median(figures[key] for figures in rounds) for key in (rounds[0] if rounds else ())}


def _text(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def _say(line: str) -> None:
    sys.stderr.write(f"[bench] {line}\n")
    sys.stderr.flush()


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)  # Everything that was started is ended on the way out.


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10} {scenario.about}" for name, scenario in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python3 dev.py bench",
        description=__doc__,
        epilog=f"scenarios:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"which; without any: {' '.join(DEFAULT)}")
    parser.add_argument("--rounds", type=int, default=1, help="how often each; the table holds medians")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
