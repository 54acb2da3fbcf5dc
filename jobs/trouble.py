"""One way to log what went wrong: an outage as one line, a bug with where it happened, no values in either."""

import logging
import traceback

from jobs.errors import DatabaseAway, QueueAway, StorageUnavailable
from jobs.outage import unavailable

_FRAMES = 12


def passing(error: BaseException) -> bool:
    """Whether an error is one of an outage, which ends by itself."""
    return isinstance(error, DatabaseAway | QueueAway | StorageUnavailable) or unavailable(error)


def log_trouble(logger: logging.Logger, action: str, error: BaseException, **facts: str | int) -> None:
    """Log a failure that the process outlives.

    The error's own text is left out: those of databases and of makers quote what they were given, prompts included.
    """
    known: dict[str, object] = {"action": action, "reason": type(error).__name__, **facts}
    if passing(error):
        logger.warning(action.replace("_", " "), extra=known)
        return
    known["trace"] = "".join(traceback.format_tb(error.__traceback__, -_FRAMES))
    logger.error(action.replace("_", " "), extra=known)
