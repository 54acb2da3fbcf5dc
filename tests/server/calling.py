"""A maker that calls back, for tests of the door: it takes everything and says what it is told to."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from providers.base import (
    Accepted,
    Cost,
    Finished,
    ImageRequest,
    ImageResult,
    ModelInfo,
    ProgressSink,
    Submission,
    Waiting,
)
from providers.errors import ErrorClass, ErrorKind, ProviderError
from providers.json import Json
from providers.webhooks import Heard, Standard, WebhookScheme

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MODEL = ModelInfo("caller-1", "Caller 1", ((32, 24),), frozenset({"n"}), 1000, (32, 24))


@dataclass
class CallingMaker:
    """Takes a request under the id `job-<run id>`; its pictures come by calls, or when it is asked.

    `pictures` holds what a job has made so far, `trusting` whether a call says it all or only that something happened.
    """

    webhook: WebhookScheme = field(default_factory=Standard)
    name: str = "caller"
    label: str = "Caller"
    models: tuple[ModelInfo, ...] = (MODEL,)
    promises: bool = True
    thin: bool = True
    requests: list[ImageRequest] = field(default_factory=list)
    polled: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    done: dict[str, bytes] = field(default_factory=dict)
    submitting: Any = None
    """Awaited with the request before it is taken."""
    polling: Any = None
    """Awaited with the remote id before a poll is answered."""

    def check(self, request: ImageRequest) -> None:
        """Everything is offered."""

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Submission:
        self.requests.append(request)
        if self.submitting is not None:
            await self.submitting(request)
        promised = self.promises and request.webhook_url is not None
        return Accepted(job_of(request.run_id), promised, poll_after_s=0.05)

    async def poll(self, remote_id: str) -> Finished | Waiting:
        self.polled.append(remote_id)
        if self.polling is not None:
            await self.polling(remote_id)
        picture = self.done.get(remote_id)
        return Waiting(0.5, 0.05) if picture is None else made(picture)

    async def cancel(self, remote_id: str) -> None:
        self.cancelled.append(remote_id)

    async def aclose(self) -> None:
        """Nothing to close."""

    def heard(self, payload: Mapping[str, Json], headers: Mapping[str, str]) -> Heard:
        data: Any = payload["data"]
        kind = str(payload["type"])
        answer: Finished | Waiting | ProviderError | None = None
        if kind == "job.processing":
            answer = Waiting(data.get("progress"))
        elif kind == "job.failed":
            answer = ProviderError("Caller refused.", ErrorClass.PERMANENT, ErrorKind.POLICY)
        elif kind == "job.broke":
            answer = ProviderError("Caller broke down.", ErrorClass.TEMPORARY, ended=True)
        elif kind == "job.completed" and "url" in data:
            answer = Finished((ImageResult(None, url=data["url"]),), Cost(40_000, "price"))
        return Heard(None, data["id"], kind, answer)


def job_of(run_id: str) -> str:
    """The maker's id of a run's job."""
    return f"job-{run_id}"


def made(picture: bytes) -> Finished:
    """A picture that costs 4 cents."""
    return Finished((ImageResult("image/png", data=picture),), Cost(40_000, "price"))


def event(kind: str, run_id: str, **data: object) -> bytes:
    """What the maker says of a run."""
    return json.dumps({"type": kind, "data": {"id": job_of(run_id), **data}}).encode()


def signed(
    body: bytes, delivery_id: str = "msg_1", *, secret: str = SECRET, at: float | None = None, **other: str
) -> dict[str, str]:
    """The headers of a call as an independent library signs it; `other` adds headers or changes them."""
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    signature = Webhook(secret).sign(delivery_id, moment, body.decode())
    headers = {
        "content-type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signature,
    }
    return headers | {name.replace("_", "-"): value for name, value in other.items()}
