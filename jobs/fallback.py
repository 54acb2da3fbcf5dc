"""Who is asked when a maker cannot: a chain of others, each with the request as it can take it. Pure."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from jobs.errors import BudgetExceeded
from jobs.state import Action, FellBack, RunError, Stage
from providers.base import ImageProvider, ImageRequest, ModelInfo, PromptSpec
from providers.errors import ErrorClass, ErrorKind, RequestRefused, UnknownModel, UnknownProvider
from providers.prices import estimate
from providers.registry import Registry

Maker: TypeAlias = tuple[str, str]
"""(provider, model)."""

MAX_FALLBACKS: Final = 5
_NEVER: Final = frozenset({ErrorKind.POLICY, ErrorKind.BAD_REQUEST, ErrorKind.EXPIRED})
"""Another maker is not asked for what one refused to make; what was made and is gone is not made twice unasked."""
_CLASSES: Final = frozenset({ErrorClass.TEMPORARY, ErrorClass.RATE_LIMIT, ErrorClass.AUTH_ERROR})
_KINDS: Final = frozenset({ErrorKind.QUOTA, ErrorKind.TIMEOUT})


def helps(error: RunError) -> bool:
    """Whether another maker may succeed where one has failed for good, or is still failing after every try."""
    return error.kind not in _NEVER and (error.error_class in _CLASSES or error.kind in _KINDS)


def chain(first: str, follows: Mapping[str, Maker]) -> tuple[Maker, ...]:
    """The makers behind `first`, each followed by the one that follows it, none twice."""
    found: list[Maker] = []
    seen, name = {first}, first
    while name in follows and follows[name][0] not in seen and len(found) < MAX_FALLBACKS:
        found.append(follows[name])
        name = follows[name][0]
        seen.add(name)
    return tuple(found)


def steps(
    asked: Maker, fallbacks: Sequence[Maker], spec: PromptSpec, error: RunError, registry: Registry
) -> Iterator[FellBack]:
    """The events of turning to each maker that is left, in order, where it is configured and can make such a picture.

    Args:
        asked: Who cannot; those up to it in the chain were asked before.
        fallbacks: The whole chain.
        spec: As it was asked for.
        error: Why they cannot.
        registry: The makers.

    """
    left = fallbacks[fallbacks.index(asked) + 1 :] if asked in fallbacks else fallbacks
    for provider_name, model_name in left:
        try:
            provider, model = registry.resolve(provider_name, model_name)
        except (UnknownProvider, UnknownModel):
            continue
        fitting = fitted(provider, model, spec)
        if fitting is not None:
            price = estimate(provider, model, fitting[0])
            yield FellBack(
                provider.name,
                model.id,
                error,
                price.usd_micros if price is not None else None,
                (f"{provider.label} was asked instead: {_sentence(error.message)}", *fitting[1]),
            )


def fitted(provider: ImageProvider, model: ModelInfo, spec: PromptSpec) -> tuple[PromptSpec, tuple[str, ...]] | None:
    """What is asked for as this maker can take it, and what was changed for that, in sentences.

    Returns:
        None where it cannot be made to fit: the prompt itself, or the picture to edit, is refused.

    """
    told: list[str] = []
    # Each turn gives up one thing that was asked for, and none comes back.
    for _ in itertools.repeat(None, 8):
        try:
            provider.check(ImageRequest("", model.id, spec))
        except RequestRefused as refused:
            less = _less(refused.field, provider, model, spec)
            if less is None:
                return None
            spec = less[0]
            told.append(less[1])
        else:
            return spec, tuple(told)
    return None


def no_room(error: BudgetExceeded) -> RunError:
    """A budget without room, as the reason to turn to another maker."""
    text = str(error)
    return RunError(
        code="budget_exceeded",
        message=f"{text[0].upper()}{text[1:]}.",
        retryable=False,
        action=Action.ADD_CREDIT,
        error_class=ErrorClass.PERMANENT,
        kind=ErrorKind.QUOTA,
        stage=Stage.QUEUED,
    )


def _less(field: str, provider: ImageProvider, model: ModelInfo, spec: PromptSpec) -> tuple[PromptSpec, str] | None:
    """What is asked for without what the maker refuses, and a sentence on it."""
    label = provider.label
    given: dict[str, tuple[object, PromptSpec, str]] = {
        "size": (
            spec.size,
            replace(spec, size=None, aspect_ratio=spec.aspect_ratio or _ratio(spec)),
            f"{label} does not make that size: it chose one of about the same shape.",
        ),
        "aspectRatio": (
            spec.aspect_ratio,
            replace(spec, aspect_ratio=None),
            f"{label} does not make {spec.aspect_ratio}: it made its usual shape.",
        ),
        "quality": (
            spec.quality,
            replace(spec, quality=None),
            f"{label} knows no quality {spec.quality!r}: it made its usual one.",
        ),
        "n": (
            spec.n > model.max_n,
            replace(spec, n=min(spec.n, model.max_n)),
            f"{label} makes at most {model.max_n} at a time, not {spec.n}.",
        ),
        "seed": (spec.seed is not None, replace(spec, seed=None), f"{label} takes no seed."),
        "negativePrompt": (
            spec.negative_prompt,
            replace(spec, negative_prompt=None),
            f"{label} takes no negative prompt.",
        ),
    }
    asked, less, told = given.get(field, (None, spec, ""))
    return (less, told) if asked else None


def _ratio(spec: PromptSpec) -> str | None:
    return None if spec.size is None else f"{spec.size[0]}:{spec.size[1]}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
