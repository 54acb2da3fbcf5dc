"""Errors of the doors.

ServerError
+-- StartupError        the server cannot start; one line says what to do about it
|   +-- BadSettings     an environment variable or an option is wrong
+-- DoorError           a request that is refused before anything is done
    +-- InvalidJson             the body is not JSON
    +-- UnsupportedMediaType    the body is something else than application/json
    +-- BodyTooLarge            the body is longer than this route takes
    +-- InvalidRequest          fields that are missing, unknown or of a wrong type
    +-- ForbiddenOrigin         a page of another site asked for a change
    +-- Unauthenticated         the access token is missing, not valid, expired or called back
    +-- Forbidden               the access token is good, but not for this
    +-- NoSecret                a token was asked for where none are used
    +-- WorkflowNotFound        no workflow has this id
    +-- ImageNotFound           no picture has this key
    +-- BatchNotFound           no batch has this id
    +-- BudgetNotFound          there is no such budget
    +-- Unready                 a part that requests depend on does not work now
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


class ServerError(Exception):
    """Base of every error this package raises."""


class StartupError(ServerError):
    """The server cannot start; the text is one line that says what to do."""


class BadSettings(StartupError):
    """An environment variable or command line option is wrong."""


class DoorError(ServerError):
    """A request refused at the door; nothing was written."""


class InvalidJson(DoorError):
    """The body is not JSON."""


class UnsupportedMediaType(DoorError):
    """The body is not `application/json`."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        super().__init__(f"send the body as application/json, not {content_type or 'without a Content-Type'}")


class BodyTooLarge(DoorError):
    """The body is longer than this route takes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the body is longer than {limit_bytes:,} bytes")


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; `field` is its camelCase path, such as `promptSpec.basePrompt`."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidRequest(DoorError):
    """Fields that are missing, unknown or of a wrong type."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, errors)))


class ForbiddenOrigin(DoorError):
    """A page of another site asked for a change."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        super().__init__(f"pages of {origin} may not change anything here; allow them with DARKROOM_CORS_ORIGINS")


class Unauthenticated(DoorError):
    """The access token is missing, not valid, expired or called back; `why` is one of these words."""

    def __init__(self, why: Literal["missing", "invalid", "expired", "revoked"], message: str) -> None:
        self.why = why
        super().__init__(message)


class Forbidden(DoorError):
    """The access token is good, but not for this; the text says what it lacks."""


class NoSecret(DoorError):
    """A token was asked for where none are used."""

    def __init__(self) -> None:
        super().__init__("this server uses no access tokens: everyone is an editor until DARKROOM_SECRET is set")


class WorkflowNotFound(DoorError):
    """No workflow has this id."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"there is no workflow {workflow_id!r}")


class BatchNotFound(DoorError):
    """No batch has this id."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"there is no batch {batch_id!r}")


class BudgetNotFound(DoorError):
    """There is no such budget."""

    def __init__(self, scope: str, key: str, period: str) -> None:
        super().__init__(f"there is no {period} budget of {scope} {key}".rstrip())


class ImageNotFound(DoorError):
    """No picture has this key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"there is no image {key!r}")


class InBatch(DoorError):
    """One request of a batch is wrong; none was started."""

    def __init__(self, index: int, cause: Exception) -> None:
        self.index = index
        self.cause = cause
        super().__init__(f"requests.{index}: {cause}")


class Unready(DoorError):
    """A part that requests depend on does not work now."""

    def __init__(self, checks: Mapping[str, str]) -> None:
        self.checks = dict(checks)
        super().__init__("; ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok"))
