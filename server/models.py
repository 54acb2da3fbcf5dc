"""Bodies and queries as they come through the door: camelCase outside, unknown fields refused."""

import datetime as dt
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic.alias_generators import to_camel

from crdt.rooms import ROOM_ID
from jobs.fallback import MAX_FALLBACKS
from providers.errors import AddressRefused
from providers.guarded import parse_url
from server.access import DEFAULT_LIFE_S, MAX_LIFE_S, MAX_WORKFLOWS

MAX_BATCH: Final = 1000
_MAX_METADATA_KEYS: Final = 100
_MAX_DEADLINE_S: Final = 7 * 24 * 3600
_MAX_PAUSE_S: Final = 365 * 24 * 3600

Id = Annotated[str, Field(min_length=1, max_length=256)]
WorkflowId = Annotated[str, Field(pattern=f"^(?:{ROOM_ID.pattern})$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """Base of every body: strict types, camelCase names, no unknown fields."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)

    def given(self) -> dict[str, Any]:
        """The fields the client sent, by their camelCase names."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Empty(Body):
    """A body without fields."""


class Person(Body):
    """Who asks, as the client says."""

    id: str | None = Field(None, max_length=128)
    name: str | None = Field(None, max_length=128)


class PromptSpecBody(Body):
    """What to draw; over a node, what is left out comes from the node's own data."""

    base_prompt: str | None = Field(None, max_length=32_000)
    style_modifiers: list[Annotated[str, Field(max_length=1_000)]] | None = Field(None, max_length=64)
    size: str | None = Field(None, max_length=32, examples=["1024x1024"])
    aspect_ratio: str | None = Field(None, max_length=64, examples=["16:9"])
    quality: str | None = Field(None, max_length=64)
    seed: int | str | None = None
    negative_prompt: str | None = Field(None, max_length=32_000)
    previous_image: str | None = Field(None, max_length=4_096, description="URL of the picture to edit")
    n: int | None = Field(None, ge=1, le=16)


class FallbackBody(Body):
    """A provider to turn to."""

    provider: Name
    model: Name | None = None


class RetryBody(Body):
    """What is to be different when a job is tried again."""

    after: str | None = Field(
        None, max_length=128, description="id of the run it follows, where that is not the one that is tried again"
    )
    prompt_spec: PromptSpecBody | None = Field(None, description="over what was asked for; null takes a field away")
    provider: Name | None = None
    model: Name | None = None
    by: Person | None = None
    fallbacks: list[FallbackBody] | None = Field(
        None, max_length=MAX_FALLBACKS, description="who is asked, in order, when the provider before cannot"
    )


class RunOptions(RetryBody):
    """What every request for a picture may say."""

    after: str | None = Field(
        None,
        max_length=128,
        description="id of the run seen as the node's current one, null for none; left out: whatever is current",
    )
    webhook_url: str | None = Field(
        None, max_length=2_048, description="called, signed, when the job has ended; an http(s) address"
    )
    metadata: dict[str, JsonValue] | None = Field(None, max_length=_MAX_METADATA_KEYS)
    priority: int = Field(0, ge=-100, le=100, description="the higher goes first, also before jobs of others")
    deadline_s: float | None = Field(
        None, ge=1, le=_MAX_DEADLINE_S, description="seconds from now after which the job has failed"
    )

    @field_validator("webhook_url")
    @classmethod
    def _callable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_url(value)
            except AddressRefused as error:
                raise ValueError(error.message) from None
        return value


class RunBody(RunOptions):
    """Body of a run of one node."""


class StartImageJobRequest(RunOptions):
    """Asks for a picture in a node."""

    workflow_id: Id
    node_id: Id


class BatchRequest(Body):
    """Asks for many pictures at once: all are checked before any is started."""

    requests: list[StartImageJobRequest] = Field(min_length=1, max_length=MAX_BATCH)


class ByBody(Body):
    """Body of a cancel or retry."""

    by: Person | None = None


class CancelBody(ByBody):
    """Which jobs to cancel: all that are everything that is named; without a name all there are."""

    workflow_id: WorkflowId | None = None
    node_id: Id | None = Field(None, description="of the workflow that is named")
    batch_id: Name | None = None
    user: Name | None = Field(None, description="who asked for them: the `sub` of a token, or `by.id`")
    provider: Name | None = None
    only: Literal["waiting"] | None = Field(None, description="leave those alone that a provider works on")

    @model_validator(mode="after")
    def _node_of_workflow(self) -> Self:
        if self.node_id is not None and self.workflow_id is None:
            raise ValueError("name workflowId too: a node's id is unique within its workflow")
        return self


class JobsQuery(Body):
    """Query of the list of jobs."""

    workflow_id: Id | None = None
    node_id: Id | None = None
    batch_id: Name | None = None
    user: Name | None = None
    status: Literal["pending", "running", "completed", "failed", "cancelled"] | None = None
    provider: Name | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=256, description="`next` of the page before")


class BudgetQuery(Body):
    """Query of the list of budgets."""

    workflow_id: Id | None = None


class BudgetName(Body):
    """Which budget."""

    scope: Literal["all", "workflow", "user", "provider"]
    key: str = Field("", max_length=256, description="id of the workflow, person or provider; empty for all")
    period: Literal["day", "month", "total"] = Field(description="days and months are those of UTC")

    @model_validator(mode="after")
    def _key_of_scope(self) -> Self:
        if (self.scope == "all") != (not self.key):
            raise ValueError("key names the workflow, person or provider, and is left out where scope is all")
        return self


class BudgetBody(BudgetName):
    """A budget."""

    limit_usd: float = Field(ge=0, le=1_000_000_000, allow_inf_nan=False)


class CostsQuery(Body):
    """Whose spending, and when."""

    workflow_id: Id | None = None
    user: Name | None = None
    provider: Name | None = None
    since: AwareDatetime | None = Field(None, alias="from", description="from this moment on")
    until: AwareDatetime | None = Field(None, alias="to", description="before this moment")


class QueueScope(Body):
    """Names what is paused or resumed; one of the three."""

    provider: Name | None = Field(None, description="one provider; for admins")
    workflow_id: WorkflowId | None = Field(None, description="one canvas")
    all: Literal[True] | None = Field(None, description="everything; for admins")

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(given is not None for given in (self.provider, self.workflow_id, self.all)) != 1:
            raise ValueError("name one of provider, workflowId and all")
        return self


class PauseBody(QueueScope):
    """Body of a pause."""

    until_s: float | None = Field(
        None, gt=0, le=_MAX_PAUSE_S, description="seconds until it ends by itself; left out: when it is resumed"
    )
    reason: str = Field("", max_length=500, description="shown to whoever looks at the queue")
    by: Person | None = Field(None, description="who paused it; of a token its own name is shown")


class MoveBody(Body):
    """Where a waiting job is put."""

    to: Literal["front", "back"]


class Position(Body):
    """A point on the canvas."""

    x: float
    y: float


class Shape(Body):
    """Fields that React Flow gives to nodes and edges alike."""

    type: str | None = Field(None, min_length=1, max_length=64)
    data: dict[str, JsonValue] | None = None
    hidden: bool | None = None
    selected: bool | None = Field(None, description="each person's own; not stored")
    selectable: bool | None = None
    deletable: bool | None = None
    focusable: bool | None = None
    z_index: int | None = None
    style: dict[str, JsonValue] | None = None
    class_name: str | None = None
    aria_label: str | None = None
    dom_attributes: dict[str, JsonValue] | None = None


class NodePatch(Shape):
    """Changes to a node; `data` is merged key by key, null removes a key of it."""

    position: Position | None = None
    width: float | None = None
    height: float | None = None
    initial_width: float | None = None
    initial_height: float | None = None
    measured: dict[str, JsonValue] | None = Field(None, description="each browser's own; not stored")
    parent_id: Id | None = None
    extent: JsonValue = None
    expand_parent: bool | None = None
    draggable: bool | None = None
    dragging: bool | None = Field(None, description="each person's own; not stored")
    resizing: bool | None = Field(None, description="each person's own; not stored")
    connectable: bool | None = None
    drag_handle: str | None = None
    source_position: str | None = None
    target_position: str | None = None
    handles: list[JsonValue] | None = None
    origin: list[float] | None = None

    @field_validator("type", "position", "data")
    @classmethod
    def _kept(cls, value: object) -> object:
        return _not_null(value)


class NodeBody(NodePatch):
    """A node in React Flow's shape; without an id it gets one."""

    id: Id | None = None


class EdgePatch(Shape):
    """Changes to an edge."""

    source: Id | None = None
    target: Id | None = None
    source_handle: str | None = None
    target_handle: str | None = None
    label: JsonValue = None
    animated: bool | None = None
    reconnectable: bool | str | None = None
    marker_start: JsonValue = None
    marker_end: JsonValue = None
    interaction_width: float | None = None
    label_style: dict[str, JsonValue] | None = None
    label_show_bg: bool | None = None
    label_bg_style: dict[str, JsonValue] | None = None
    label_bg_padding: list[float] | None = None
    label_bg_border_radius: float | None = None
    path_options: dict[str, JsonValue] | None = None

    @field_validator("source", "target")
    @classmethod
    def _kept(cls, value: object) -> object:
        return _not_null(value)


class EdgeBody(EdgePatch):
    """An edge in React Flow's shape; without an id it gets one."""

    id: Id | None = None
    source: Id
    target: Id


class WorkflowBody(Body):
    """A new workflow, empty or with nodes and edges."""

    title: str = Field("", max_length=200)
    nodes: list[NodeBody] = Field(default_factory=list, max_length=10_000)
    edges: list[EdgeBody] = Field(default_factory=list, max_length=20_000)


class WorkflowPatch(Body):
    """A new title."""

    title: str = Field(max_length=200)


class TokenBody(Body):
    """Asks for an access token."""

    role: Literal["viewer", "editor", "admin"]
    workflows: Literal["*"] | Annotated[list[WorkflowId], Field(min_length=1, max_length=MAX_WORKFLOWS)] = Field(
        description="ids, or '*' for every workflow"
    )
    name: Name | None = Field(None, description="who it is for, as others see it")
    sub: Name | None = Field(None, description="id of who it is for; made up when left out")
    expires_in_s: int = Field(DEFAULT_LIFE_S, ge=1, le=MAX_LIFE_S, description="seconds until it ends")


class ShareBody(Body):
    """Asks for a link into one workflow."""

    role: Literal["viewer", "editor"]
    name: Name | None = Field(None, description="who it is for, as others see it; Guest when left out")
    expires_in_s: int = Field(DEFAULT_LIFE_S, ge=1, le=MAX_LIFE_S, description="seconds until it ends")


class RevokeBody(Body):
    """Names the token, or the person, whose tokens are called back; one of the two."""

    jti: Name | None = Field(None, description="id of one token, `id` of the answer that made it")
    sub: Name | None = Field(None, description="id of a person: every token they were given until now")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.jti is None) == (self.sub is None):
            raise ValueError("name either jti or sub")
        return self


class PageQuery(Body):
    """Query of a list."""

    limit: int = Field(50, ge=1, le=200)
    before: dt.datetime | None = Field(None, description="`next` of the page before")


class HistoryQuery(Body):
    """Query of the jobs of a node."""

    limit: int = Field(50, ge=1, le=200)
    before: int | None = Field(None, ge=1, description="`next` of the page before")


class CanvasEventsQuery(Body):
    """Query of the events of a canvas."""

    after: str | None = Field(None, max_length=2_048, description="`next` of a list, or an id that a stream gave")
    limit: int = Field(200, ge=1, le=1_000, description="of a list; there may be more behind `next`")


class EventsQuery(Body):
    """Query of events."""

    after: int = Field(0, ge=0, description="only events behind this number")


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("cannot be null; leave it out to keep it")
    return value
