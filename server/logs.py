"""Log lines: one fact each, as JSON or as text for people; never a secret, a token, a prompt or picture bytes."""

import datetime as dt
import json
import logging
import re
import sys
from contextvars import ContextVar
from typing import Any, Final, Literal, TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the HTTP request that is being answered; every line logged meanwhile carries it."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_QUIET: Final = ("alembic", "asyncio", "docket", "pyvips")
"""Libraries that are heard only from warnings on, unless somebody looks for a bug."""
_QUOTING: Final = ("aiosqlite", "httpcore2", "httpx2", "openai", "sqlalchemy", "uvicorn", "websockets")
"""Libraries that quote what they are given, rows, headers, frames: heard from warnings on, whatever the level."""


_TOKENS: Final = (
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "[token]"),
    (re.compile(r"(?i)([?&#]token=|bearer |darkroom\.token\.)[^\s&\"',;\\]+"), r"\1[token]"),
)
"""Access tokens as they stand in addresses and headers, which libraries quote at debug level."""


def redact(line: str) -> str:
    """The line without access tokens."""
    for pattern, instead in _TOKENS:
        line = pattern.sub(instead, line)
    return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, logger, message, and what the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "ts": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras(record),
        }
        if record.exc_info:
            line["exception"] = _exception(self, record)
        return redact(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, then `key=value` pairs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on lines of its own."""
        pairs = " ".join(f"{key}={value}" for key, value in extras(record).items())
        clock = _time(record).astimezone().strftime("%H:%M:%S")
        text = f"{clock} {record.levelname.lower():<7} {record.getMessage()}{'  ' if pairs else ''}{pairs}"
        return redact(f"{text}\n{_exception(self, record)}" if record.exc_info else text)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the call gave as `extra`, and the id of the request it served."""
    found = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    current = request_id.get()
    if current is not None:
        found.setdefault("request_id", current)
    return found


def set_up_logging(level: str, style: Literal["auto", "json", "text"], stream: TextIO | None = None) -> None:
    """Send every line to `stream` (stderr), in place of whatever was set up before."""
    out = stream or sys.stderr
    text = style == "text" or (style == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUOTING if level == "debug" else (*_QUIET, *_QUOTING):
        logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    error: BaseException | None = record.exc_info[1]
    while error is not None:
        # SQLAlchemy puts the parameters of the statement into its text, and with them what people wrote.
        if hasattr(error, "hide_parameters"):
            error.hide_parameters = True
        error = error.__cause__ or error.__context__
    return formatter.formatException(record.exc_info)
