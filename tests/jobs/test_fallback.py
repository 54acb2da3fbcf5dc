from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs import policy as rules
from jobs.budgets import Budget, Period, Scope
from jobs.fallback import MAX_FALLBACKS, chain, fitted, helps, steps
from jobs.policy import RetryPolicy
from jobs.requests import Fallback
from jobs.spending import Spending
from jobs.state import Stage, Status
from jobs.tables import run_costs
from providers.base import Cost, ImageRequest, PromptSpec
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from providers.registry import Registry
from tests.jobs.builders import MODEL, FakeProvider, Studio, event_kinds, finished, pending, rows, studio

SPEC = PromptSpec("a fox", size=(2048, 1024), quality="high", seed=7, negative_prompt="dogs", n=6)


class Picky(FakeProvider):
    """A maker that refuses these fields where they are given."""

    def __init__(self, refuses: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.refuses = refuses

    def check(self, request: ImageRequest) -> None:
        given = request.spec.to_json()
        for field in self.refuses:
            if field in given and not (field == "n" and request.spec.n <= MODEL.max_n):
                raise RequestRefused(field, "not offered")


def failure(error_class: ErrorClass, kind: ErrorKind | None = None, **options: Any) -> ProviderError:
    return ProviderError("Fake cannot now.", error_class, kind, **options)


def other(name: str = "other", *answers: Any, **options: Any) -> FakeProvider:
    return FakeProvider(list(answers), name=name, label=name.title(), **options)


def behind(*names: str) -> tuple[Fallback, ...]:
    return tuple(Fallback(name, "fake-1") for name in names)


def test_only_what_another_maker_may_do_better_goes_to_one() -> None:
    cases = {
        (ErrorClass.TEMPORARY, None): True,
        (ErrorClass.TEMPORARY, ErrorKind.TIMEOUT): True,
        (ErrorClass.PERMANENT, ErrorKind.TIMEOUT): True,
        (ErrorClass.RATE_LIMIT, None): True,
        (ErrorClass.AUTH_ERROR, None): True,
        (ErrorClass.PERMANENT, ErrorKind.QUOTA): True,
        (ErrorClass.PERMANENT, ErrorKind.POLICY): False,
        (ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST): False,
        (ErrorClass.PERMANENT, ErrorKind.EXPIRED): False,
        (ErrorClass.PERMANENT, None): False,
    }
    told = {case: helps(rules.run_error(failure(*case), Stage.SUBMITTING)) for case in cases}
    assert told == cases


def test_a_chain_names_nobody_twice_and_ends() -> None:
    follows = {"a": ("b", "m"), "b": ("c", "m"), "c": ("a", "m"), "x": ("x", "m")}
    assert chain("a", follows) == (("b", "m"), ("c", "m"))
    assert (chain("d", follows), chain("x", follows)) == ((), ())
    long = {str(number): (str(number + 1), "m") for number in range(99)}
    assert len(chain("0", long)) == MAX_FALLBACKS


def test_a_request_is_changed_as_far_as_a_maker_needs_and_each_change_is_told() -> None:
    fields = ("size", "aspectRatio", "quality", "seed", "negativePrompt", "n")
    fitting = fitted(Picky(fields, label="Picky"), MODEL, SPEC)
    assert fitting is not None
    assert fitting[0] == PromptSpec("a fox", n=4)
    assert len(fitting[1]) == len(fields)
    assert all("Picky" in sentence for sentence in fitting[1])
    shape = fitted(Picky(["size"]), MODEL, SPEC)
    assert shape is not None
    assert shape[0] == replace(SPEC, size=None, aspect_ratio="2048:1024")
    assert fitted(FakeProvider(), MODEL, SPEC) == (SPEC, ())


@pytest.mark.parametrize("field", ["basePrompt", "previousImage", "model"])
def test_what_makes_it_another_picture_is_not_given_up(field: str) -> None:
    spec = replace(SPEC, previous_image="http://x/y.png")

    class Refusing(FakeProvider):
        def check(self, request: ImageRequest) -> None:
            raise RequestRefused(field, "no")

    assert fitted(Refusing(), MODEL, spec) is None


def test_makers_that_are_gone_or_cannot_are_passed_over() -> None:
    registry = Registry([other("a"), Picky(["basePrompt"], name="b"), other("c")])
    error = rules.run_error(failure(ErrorClass.AUTH_ERROR), Stage.SUBMITTING)
    makers = [("gone", "fake-1"), ("a", "no-model"), ("b", "fake-1"), ("c", "fake-1")]
    (event,) = steps(("first", "m"), makers, SPEC, error, registry)
    assert (event.provider, event.model, event.estimate_usd_micros) == ("c", "fake-1", 6_000)
    assert event.adapted == ("C was asked instead: Fake cannot now.",)
    assert list(steps(("c", "fake-1"), makers, SPEC, error, registry)) == []


async def run_with(
    engine: AsyncEngine, root: Path, first: FakeProvider, *others: FakeProvider, **options: Any
) -> tuple[Studio, Any]:
    # A maker that has no time is waited for, but not here.
    policy = RetryPolicy(refusals_limit_s=0.0)
    async with studio(engine, root, first, more=others, policy=policy) as made:
        names = [maker.name for maker in others]
        run = await pending(made.runs, fallbacks=behind(*names), estimate_usd_micros=5, **options)
        return made, await made.go(run)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (failure(ErrorClass.TEMPORARY), 3),
        (failure(ErrorClass.RATE_LIMIT, retry_after_s=1), 1),
        (failure(ErrorClass.AUTH_ERROR), 1),
        (failure(ErrorClass.PERMANENT, ErrorKind.QUOTA), 1),
    ],
)
async def test_a_run_goes_on_with_the_next_maker(
    sqlite_engine: AsyncEngine, tmp_path: Path, error: ProviderError, calls: int
) -> None:
    first, second = FakeProvider([error]), other("other", finished(cost=Cost(9, "price")))
    made, run = await run_with(sqlite_engine, tmp_path, first, second)
    assert (run.status, run.processor, run.cost_usd_micros) == (Status.COMPLETED, "other:fake-1", 9)
    assert (len(first.requests), len(second.requests)) == (calls, 1)
    assert (await event_kinds(sqlite_engine, run.id)).count("fell_back") == 1
    (told,) = run.payload["adapted"]
    assert told.startswith("Other was asked instead: Fake ")
    assert (run.reserved_usd_micros, [row.provider for row in await rows(sqlite_engine, run_costs)]) == (0, ["other"])
    assert len(made.files()) == 2


@pytest.mark.parametrize("kind", [ErrorKind.POLICY, ErrorKind.BAD_REQUEST])
async def test_what_one_maker_refuses_to_make_is_asked_of_no_other(
    sqlite_engine: AsyncEngine, tmp_path: Path, kind: ErrorKind
) -> None:
    first, second = FakeProvider([failure(ErrorClass.PERMANENT, kind)]), other()
    _, run = await run_with(sqlite_engine, tmp_path, first, second)
    assert (run.status, run.provider, second.requests) == (Status.FAILED, "fake", [])


async def test_the_next_maker_is_asked_for_what_it_can_make(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    first, second = FakeProvider([failure(ErrorClass.AUTH_ERROR)]), Picky(["quality"], name="other", label="Other")
    spec = PromptSpec("a fox", quality="high", seed=7)
    _, run = await run_with(sqlite_engine, tmp_path, first, second, spec=spec)
    assert second.requests[0].spec == PromptSpec("a fox", seed=7)
    assert run.payload["adapted"][1:] == ["Other knows no quality 'high': it made its usual one."]
    assert run.spec == spec


async def test_a_chain_that_fails_to_its_end_fails_the_run_with_the_last_reason(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    last = other("last", ProviderError("Last has no key.", ErrorClass.AUTH_ERROR))
    first, second = FakeProvider([failure(ErrorClass.AUTH_ERROR)]), other("other", failure(ErrorClass.TEMPORARY))
    _, run = await run_with(sqlite_engine, tmp_path, first, second, last)
    assert (run.status, run.provider, run.error.message) == (Status.FAILED, "last", "Last has no key.")
    assert [len(maker.requests) for maker in (first, second, last)] == [1, 3, 1]


async def test_a_maker_without_budget_is_passed_over(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    await Spending(sqlite_engine).limit(Budget(Scope.PROVIDER, "other", Period.TOTAL, 10))
    first, second, third = FakeProvider([failure(ErrorClass.AUTH_ERROR)]), other(), other("third")
    _, run = await run_with(sqlite_engine, tmp_path, first, second, third)
    assert (run.status, run.provider, second.requests) == (Status.COMPLETED, "third", [])
