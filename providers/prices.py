"""What a picture is expected to cost, from the price facts of makers, each with its date. Pure."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from providers.base import ImageProvider, ModelInfo, PromptSpec


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to cost, in micro-dollars; `as_of` is the date of the price it was computed from."""

    usd_micros: int
    as_of: dt.date | None


@runtime_checkable
class TellsPrices(Protocol):
    """A maker whose prices go by more than the model."""

    def estimate(self, model: str, spec: PromptSpec) -> Estimate | None:
        """What a request is expected to cost; None where no price is known."""


def estimate(provider: ImageProvider, model: ModelInfo, spec: PromptSpec) -> Estimate | None:
    """What a request is expected to cost: what its maker tells, or so many usual pictures of the model.

    Args:
        provider: The maker.
        model: Of that maker.
        spec: What is asked for.

    Returns:
        None where no price is known.

    """
    if isinstance(provider, TellsPrices):
        return provider.estimate(model.id, spec)
    if model.estimate_usd_micros is None:
        return None
    return Estimate(model.estimate_usd_micros * spec.n, model.priced_on)
