"""Orders for pictures, from HTTP and from the document alike: checked against the node, then made into runs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from crdt.canvas import CanvasNode, read_node
from crdt.catalog import Catalog
from crdt.errors import NodeNotFound
from crdt.json import Json
from crdt.rooms import Rooms
from jobs.control import QueueControl
from jobs.errors import IntentRefused, QueueFull, RunActive
from jobs.intents import CancelIntent, Intent
from jobs.requests import UNSET, Requested, RunRequest, Unset
from jobs.run import Run
from jobs.runs import Runs
from jobs.worker import Worker
from providers.base import ImageProvider, ImageRequest, ModelInfo, PromptSpec
from providers.errors import InvalidSpec, RequestRefused, UnknownModel, UnknownProvider
from providers.registry import Registry
from server.errors import DoorError, FieldError, InBatch, InvalidRequest, WorkflowNotFound
from server.metrics import Metrics

logger = logging.getLogger(__name__)

_PARAMS: Final = ("size", "aspectRatio", "quality", "seed", "n", "styleModifiers", "previousImage", "negativePrompt")
_NO_PROMPT: Final = "a prompt is required: give promptSpec.basePrompt, or fill in the node's data.prompt"


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants made in a node; what is left out comes from the node's own data.

    Attributes:
        spec: promptSpec fields that were given, by their camelCase names; null takes the node's value away.
        by: {id?, name?} of who asks.

    """

    workflow_id: str
    node_id: str
    after: str | Unset | None = UNSET
    spec: Mapping[str, Json] = field(default_factory=dict)
    provider: str | None = None
    model: str | None = None
    by: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    webhook_url: str | None = None
    parent_id: str | None = None
    batch_id: str | None = None
    priority: int = 0
    deadline_s: float | None = None


class Orders:
    """Turns orders into runs that are worked on."""

    def __init__(  # noqa: PLR0913, PLR0917 - its seams
        self,
        catalog: Catalog,
        rooms: Rooms,
        runs: Runs,
        registry: Registry,
        worker: Worker,
        control: QueueControl,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._rooms = rooms
        self._runs = runs
        self._registry = registry
        self._worker = worker
        self._control = control
        self._metrics = metrics

    async def start(self, order: Order) -> Requested:
        """Check an order and make its run, or find the run an equal order made.

        Raises:
            WorkflowNotFound, NodeNotFound: There is no such place.
            InvalidRequest, InvalidSpec, RequestRefused, UnknownProvider, UnknownModel: It cannot be made as asked.
            StaleRequest, RunActive, IdempotencyConflict: The node has moved on, or the key is taken.
            QueueFull: Too many wait.

        """
        return await self._submit(await self.prepare(order))

    async def start_batch(self, orders: Sequence[Order]) -> list[Run]:
        """Check every order, then start them all; one that cannot be started stops the batch before it begins.

        Raises:
            InBatch: Names the order, and what is wrong with it.

        """
        requests = []
        seen: set[tuple[str, str]] = set()
        for index, order in enumerate(orders):
            try:
                requests.append(await self.prepare(order))
            except Exception as error:
                raise InBatch(index, error) from error
            place = (order.workflow_id, order.node_id)
            if place in seen:
                twice = InvalidRequest([FieldError("nodeId", "is named twice in this batch")])
                raise InBatch(index, twice)
            seen.add(place)
        await self._refuse_active(orders)
        # First every row, then the queue: attempts at work would slow down what the caller waits for.
        await self._room_for(requests)
        requested = [await self._request_or_find(request) for request in requests]
        self._control.dispatcher.poke()
        return [made.run for made in requested]

    async def retry(self, run_id: str, by: Mapping[str, str], idempotency_key: str | None = None) -> Requested:
        """Ask again for what an ended run was asked for; the new run follows it and names it as its parent.

        Raises:
            RunNotFound: No run has this id.
            RunActive, StaleRequest: It has not ended, or is not its node's current run any more.

        """
        run = await self._runs.get(run_id)
        if not run.status.terminal:
            raise RunActive(run)
        order = Order(
            workflow_id=run.workflow_id,
            node_id=run.node_id,
            after=run.id,
            spec=dict.fromkeys(_PARAMS) | run.spec.to_json(),
            provider=run.provider,
            model=run.model,
            by=by,
            idempotency_key=idempotency_key,
            metadata=run.metadata,
            webhook_url=run.webhook_url,
            parent_id=run.id,
            priority=run.priority,
        )
        return await self.start(order)

    async def cancel(self, run_id: str, by: Mapping[str, str]) -> Run:
        """Cancel a run; one that has ended is left as it is.

        Raises:
            RunNotFound: No run has this id.

        """
        run = await self._runs.cancel(run_id, by)
        await self._worker.cancel(run_id)
        return run

    async def ask(self, workflow_id: str, node_id: str, intent: Intent) -> None:
        """Do what somebody asks for in the document, as the HTTP routes do.

        Raises:
            IntentRefused: It cannot be done as asked; other errors of `start` and `cancel` say why by themselves.

        """
        try:
            if isinstance(intent, CancelIntent):
                run = await self._runs.get(intent.run_id)
                if (run.workflow_id, run.node_id) != (workflow_id, node_id):
                    raise IntentRefused("run-not-found", "that run is not this node's")
                await self.cancel(run.id, intent.by)
                return
            order = Order(
                workflow_id=workflow_id,
                node_id=node_id,
                after=intent.after,
                provider=intent.provider,
                model=intent.model,
                by=intent.by,
            )
            await self.start(order)
        except DoorError as error:
            raise IntentRefused("invalid-request", str(error)) from error

    async def prepare(self, order: Order) -> RunRequest:
        """Check an order against its node and its provider; writes nothing."""
        node = await self._node(order.workflow_id, order.node_id)
        spec = self._spec(order, node)
        provider, model = self._maker(order, node)
        _check(provider, ImageRequest("", model.id, spec), order)
        return RunRequest(
            workflow_id=order.workflow_id,
            node_id=order.node_id,
            spec=spec,
            provider=provider.name,
            model=model.id,
            after=order.after,
            node=node.to_row(),
            requested_by=order.by,
            idempotency_key=order.idempotency_key,
            metadata=order.metadata,
            webhook_url=order.webhook_url,
            parent_id=order.parent_id,
            batch_id=order.batch_id,
            priority=order.priority,
            deadline_s=order.deadline_s,
        )

    async def _submit(self, request: RunRequest) -> Requested:
        known = await self._room_for([request])
        if known is not None:
            return Requested(known, created=False)
        requested = await self._request(request)
        if requested.created:
            self._control.dispatcher.poke()
        return requested

    async def _room_for(self, requests: Sequence[RunRequest]) -> Run | None:
        """Check that the queue takes these; a full one still knows what it took before: the run of the first.

        Raises:
            QueueFull: It takes no more.

        """
        first = requests[0]
        try:
            await self._control.admit(first.requested_by.get("id"), first.workflow_id, len(requests))
        except QueueFull:
            known = await self._runs.known(first)
            if known is None:
                raise
            return known
        return None

    async def _request(self, request: RunRequest) -> Requested:
        requested = await self._runs.request_run(request)
        if requested.created:
            self._metrics.run_requested(request.provider)
        return requested

    async def _request_or_find(self, request: RunRequest) -> Requested:
        try:
            return await self._request(request)
        except RunActive as error:
            # Somebody was quicker while the batch was being started: the node's run is theirs.
            return Requested(error.current, created=False)

    async def _refuse_active(self, orders: Sequence[Order]) -> None:
        places: dict[str, list[str]] = {}
        for order in orders:
            places.setdefault(order.workflow_id, []).append(order.node_id)
        current = {workflow_id: await self._runs.current(workflow_id, nodes) for workflow_id, nodes in places.items()}
        for index, order in enumerate(orders):
            run = current[order.workflow_id].get(order.node_id)
            if run is None or run.status.terminal:
                continue
            if order.idempotency_key is None or run.idempotency_key != order.idempotency_key:
                raise InBatch(index, RunActive(run))

    async def _node(self, workflow_id: str, node_id: str) -> CanvasNode:
        if self._rooms.opened(workflow_id) is None and not await self._catalog.exists(workflow_id):
            raise WorkflowNotFound(workflow_id)
        async with self._rooms.use(workflow_id) as room:
            node = read_node(room.doc, node_id)
        if node is None:
            raise NodeNotFound(node_id)
        return node

    def _spec(self, order: Order, node: CanvasNode) -> PromptSpec:
        merged = merge_spec(order.spec, node.data)
        prompt = merged.get("basePrompt")
        if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
            raise InvalidRequest([FieldError("promptSpec.basePrompt", _NO_PROMPT)])
        try:
            return PromptSpec.from_json(merged)
        except InvalidSpec as error:
            raise InvalidRequest([FieldError(field_path(error.field, order.spec), error.message)]) from error

    def _maker(self, order: Order, node: CanvasNode) -> tuple[ImageProvider, ModelInfo]:
        own_provider, own_model = _text(node.data.get("provider")), _text(node.data.get("model"))
        if order.provider is not None:
            model = order.model or (own_model if own_provider == order.provider else None)
            return self._registry.resolve(order.provider, model)
        if order.model is not None:
            return self._registry.resolve(self._offering(own_provider, order.model), order.model)
        try:
            return self._registry.resolve(own_provider, own_model)
        except (UnknownProvider, UnknownModel) as error:
            path = "data.provider" if isinstance(error, UnknownProvider) else "data.model"
            raise InvalidRequest([FieldError(path, str(error))]) from error

    def _offering(self, provider: str | None, model: str) -> str | None:
        """The node's own provider, if it offers the model that was asked for."""
        for known in self._registry.providers:
            if known.name == provider and any(offered.id == model for offered in known.models):
                return provider
        return None


def merge_spec(given: Mapping[str, Json], data: Mapping[str, Json]) -> dict[str, Json]:
    """The promptSpec of an order over the data of its node; pure."""
    params = data.get("params")
    own: dict[str, Json] = dict(params) if isinstance(params, Mapping) else {}
    own = {name: own[name] for name in _PARAMS if own.get(name) not in (None, "")}
    if data.get("negativePrompt"):
        own["negativePrompt"] = data["negativePrompt"]
    own["basePrompt"] = data.get("prompt")
    if given.get("aspectRatio"):
        # A size wins over a ratio, but not the node's own size over the ratio that is asked for now.
        own.pop("size", None)
    return {name: value for name, value in {**own, **given}.items() if value is not None}


def field_path(name: str, given: Mapping[str, Json]) -> str:
    """Where a field of a promptSpec was read: the request's, or the node's data."""
    if name in given:
        return f"promptSpec.{name}"
    return {"basePrompt": "data.prompt", "negativePrompt": "data.negativePrompt"}.get(name, f"data.params.{name}")


def _check(provider: ImageProvider, request: ImageRequest, order: Order) -> None:
    try:
        provider.check(request)
    except RequestRefused as error:
        path = error.field if error.field == "model" else field_path(error.field, order.spec)
        raise InvalidRequest([FieldError(path, error.message)]) from error


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
