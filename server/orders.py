"""Orders for pictures, from HTTP and from the document alike: checked against the node, then made into runs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from crdt.canvas import CanvasNode, read_node
from crdt.catalog import Catalog
from crdt.errors import NodeNotFound
from crdt.json import Json
from crdt.rooms import Rooms
from jobs import fallback
from jobs.errors import BatchRefused, BudgetExceeded, IntentRefused, RunActive, RunNotFound
from jobs.fallback import Maker
from jobs.intents import CancelIntent, Intent
from jobs.requests import UNSET, Fallback, Requested, RunRequest, Unset
from jobs.run import Run
from jobs.runs import Runs
from jobs.worker import Worker
from providers.base import ImageProvider, ImageRequest, ModelInfo, PromptSpec
from providers.errors import InvalidSpec, RequestRefused, UnknownModel, UnknownProvider
from providers.prices import Estimate, estimate
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
        fallbacks: (provider, model) to turn to, in order; None: as the server is set up.

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
    fallbacks: Sequence[tuple[str, str | None]] | None = None


class Orders:
    """Turns orders into runs that are worked on.

    Args:
        catalog: Which workflows there are.
        rooms: Their documents.
        runs: The truth.
        registry: The makers.
        worker: Works on runs.
        metrics: Where requests are counted.
        follows: Who is asked when a maker cannot, where an order does not say.

    """

    def __init__(  # noqa: PLR0913 - its seams
        self,
        catalog: Catalog,
        rooms: Rooms,
        runs: Runs,
        registry: Registry,
        worker: Worker,
        metrics: Metrics,
        *,
        follows: Mapping[str, Maker] | None = None,
    ) -> None:
        self._follows = follows or {}
        self._catalog = catalog
        self._rooms = rooms
        self._runs = runs
        self._registry = registry
        self._worker = worker
        self._metrics = metrics

    async def start(self, order: Order) -> Requested:
        """Check an order and make its run, or find the run an equal order made.

        Raises:
            WorkflowNotFound, NodeNotFound: There is no such place.
            InvalidRequest, InvalidSpec, RequestRefused, UnknownProvider, UnknownModel: It cannot be made as asked.
            StaleRequest, RunActive, IdempotencyConflict: The node has moved on, or the key is taken.

        """
        return await self._submit(await self.prepare(order))

    async def start_batch(self, orders: Sequence[Order]) -> list[Run]:
        """Check every order, then start them all; one that cannot be started stops the batch before it begins.

        Raises:
            InBatch, BatchRefused: Name the order, and what is wrong with it.

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
        requested = await self._request_many(requests)
        made = [answer.run for answer in requested if answer.created]
        for run in made:
            self._metrics.run_requested(run.provider)
        await self._worker.queue.enqueue_many([(run.id, None) for run in made])
        return [answer.run for answer in requested]

    async def retry(self, run_id: str, changes: Order) -> Requested:
        """Ask again for what an ended run was asked for, with these changes; the new run names it as its parent.

        Args:
            run_id: Of the run.
            changes: `after` is the run it follows, this one where it is not given.

        Raises:
            RunNotFound: No run has this id.
            RunActive, StaleRequest: It has not ended, or the run to follow is not the node's current one any more.

        """
        run = await self._runs.get(run_id)
        if not run.status.terminal:
            raise RunActive(run)
        same_maker = changes.provider in {None, run.provider}
        spec = dict.fromkeys(_PARAMS) | run.spec.to_json()
        if changes.spec.get("aspectRatio"):
            # A size wins over a ratio, but not the old one over the ratio that is asked for now.
            spec["size"] = None
        order = replace(
            changes,
            workflow_id=run.workflow_id,
            node_id=run.node_id,
            after=run.id if isinstance(changes.after, Unset) else changes.after,
            spec=spec | dict(changes.spec),
            provider=changes.provider or (run.provider if changes.model is None else None),
            model=changes.model or (run.model if same_maker else None),
            metadata=run.metadata,
            webhook_url=run.webhook_url,
            parent_id=run.id,
        )
        return await self.start(order)

    async def use(self, workflow_id: str, node_id: str, run_id: str, by: Mapping[str, str]) -> Requested:
        """Have a node show again what an earlier run of it made.

        Raises:
            WorkflowNotFound, NodeNotFound, RunNotFound: There is no such place, or run of it.
            NothingToUse, RunActive: It made no picture, or the node's current run has not ended.

        """
        await self._node(workflow_id, node_id)
        run = await self._runs.get(run_id)
        if (run.workflow_id, run.node_id) != (workflow_id, node_id):
            raise RunNotFound(run_id)
        return await self._runs.restore(run_id, by)

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
        price = estimate(provider, model, spec)
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
            estimate_usd_micros=None if price is None else price.usd_micros,
            fallbacks=self._fallbacks(order, (provider.name, model.id)),
        )

    def price(self, request: RunRequest) -> Estimate | None:
        """What a request is expected to cost, and of when that price is."""
        provider, model = self._registry.resolve(request.provider, request.model)
        return estimate(provider, model, request.spec)

    def _fallbacks(self, order: Order, first: Maker) -> tuple[Fallback, ...]:
        if order.fallbacks is None:
            makers = fallback.chain(first[0], self._follows)
        else:
            makers = tuple(self._named(index, *maker) for index, maker in enumerate(order.fallbacks))
        return tuple(Fallback(*maker) for maker in dict.fromkeys(makers) if maker != first)

    def _named(self, index: int, provider: str, model: str | None) -> Maker:
        try:
            found, info = self._registry.resolve(provider, model)
        except (UnknownProvider, UnknownModel) as error:
            part = "provider" if isinstance(error, UnknownProvider) else "model"
            raise InvalidRequest([FieldError(f"fallbacks.{index}.{part}", str(error))]) from error
        return found.name, info.id

    async def _submit(self, request: RunRequest) -> Requested:
        requested = await self._request(request)
        if requested.created:
            await self._worker.enqueue(requested.run.id)
        return requested

    async def _request(self, request: RunRequest) -> Requested:
        while True:
            try:
                requested = await self._runs.request_run(request)
            except BudgetExceeded as error:
                moved = self._elsewhere(request, error)
                if moved is None:
                    raise
                request = moved
            else:
                break
        if requested.created:
            self._metrics.run_requested(requested.run.provider)
        return requested

    async def _request_many(self, requests: list[RunRequest]) -> list[Requested]:
        while True:
            try:
                return await self._runs.request_many(requests)
            except BatchRefused as refused:
                moved = None
                if isinstance(refused.cause, BudgetExceeded):
                    moved = self._elsewhere(requests[refused.index], refused.cause)
                if moved is None or not isinstance(refused.cause, BudgetExceeded):
                    raise
                # There is no room for those behind it either: one turn for all, not one for each.
                full = asked_of(requests[refused.index])[0]
                for index in range(refused.index, len(requests)):
                    if asked_of(requests[index])[0] == full:
                        requests[index] = self._elsewhere(requests[index], refused.cause) or requests[index]

    def _elsewhere(self, request: RunRequest, error: BudgetExceeded) -> RunRequest | None:
        """The request at the next maker that can make it; None where there is none."""
        makers = [(maker.provider, maker.model) for maker in request.fallbacks]
        reason = fallback.no_room(error)
        event = next(fallback.steps(asked_of(request), makers, request.spec, reason, self._registry), None)
        return None if event is None else replace(request, fell_back=(*request.fell_back, event))

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


def asked_of(request: RunRequest) -> Maker:
    """Who is asked first for it, makers that were passed over left out; pure."""
    last = request.fell_back[-1] if request.fell_back else request
    return last.provider, last.model


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
