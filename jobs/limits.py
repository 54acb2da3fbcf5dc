"""How many calls a maker takes: in a time, and at once. Pure: the time is an argument."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

MAX_COUNT: Final = 100_000
MIN_WINDOW_S: Final = 0.05
MAX_WINDOW_S: Final = 86_400.0
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"([0-9]{1,6})\s*(images?)?\s*/\s*([0-9]{0,6}(?:\.[0-9]{1,3})?)\s*([smhd])")
_SCOPE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(?::[^\s,=]{1,190})?")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let through: when (Unix seconds), and how many pictures it asked for."""

    at: float
    images: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls, or pictures, in any time of `window_s` seconds."""

    count: int
    window_s: float
    images: bool = False

    @property
    def slack_s(self) -> float:
        """How long after its reserved moment a call may still leave (seconds)."""
        return min(max(self.window_s * 0.05, 0.1), 1.0)

    @property
    def span_s(self) -> float:
        """The window with room for a first call that left late: what is counted back from a reserved moment."""
        return self.window_s + 1.5 * self.slack_s

    def units(self, images: int) -> int:
        """What a call for so many pictures takes of it; never more than there is, or it could not be made at all."""
        return min(max(images, 1), self.count) if self.images else 1

    def earliest(self, calls: Sequence[Call], now: float, images: int) -> float:
        """The first moment at which one more call may be made.

        Half of a window's budget may go at once, the rest at even distances. No moment before one that is already
        reserved is given away: that keeps every window right without looking at what follows.

        Args:
            calls: Let through before, oldest first; those before now - `span_s` do not matter.
            now: Unix seconds.
            images: How many pictures it asks for.

        """
        units = self.units(images)
        taken = [call.at for call in calls for _ in range(self.units(call.images))]
        if not taken:
            return now
        moment = max(now, taken[-1])
        too_many = self.count - units + 1
        if len(taken) >= too_many:
            moment = max(moment, taken[-too_many] + self.span_s)
        held = sum(at > moment - self.span_s for at in taken)
        if held + units > math.ceil(self.count / 2):
            moment = max(moment, taken[-1] + self.span_s * units / self.count)
        return moment

    def __str__(self) -> str:
        return f"{self.count}{' images' if self.images else ''}/{self.window_s:g}s"


@dataclass(frozen=True, slots=True)
class Limit:
    """What one maker, or one model of it, takes; nothing set is no limit."""

    rates: tuple[Rate, ...] = ()
    in_flight: int | None = None

    @property
    def span_s(self) -> float:
        """How far back calls count (seconds)."""
        return max((rate.span_s for rate in self.rates), default=0.0)

    def __str__(self) -> str:
        parts = [str(rate) for rate in self.rates]
        return ", ".join(parts if self.in_flight is None else [*parts, f"{self.in_flight} at once"])


class BadLimits(ValueError):
    """A text that is no list of limits; says what one looks like."""


OPENAI_TIERS: Final = {f"tier{number}": count for number, count in enumerate((5, 20, 50, 150, 250), start=1)}
"""Pictures a minute, by usage tier."""
DEFAULTS: Final[Mapping[str, Limit]] = {
    "openai": Limit((Rate(OPENAI_TIERS["tier1"], 60.0, images=True),)),
    "stability": Limit((Rate(150, 10.0),)),
    "ideogram": Limit(in_flight=10),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits by scope: "provider", or "provider:model", which counts besides that of its provider."""

    scopes: Mapping[str, Limit] = field(default_factory=lambda: dict(DEFAULTS))

    def of(self, provider: str, model: str) -> Iterator[tuple[str, Limit]]:
        """The limits that a call of this model has to keep."""
        for scope in (provider, f"{provider}:{model}"):
            limit = self.scopes.get(scope)
            if limit is not None:
                yield scope, limit

    def slack_s(self, provider: str, model: str) -> float | None:
        """How late a call of this model may leave; None where nothing counts calls in a time."""
        return min((rate.slack_s for _, limit in self.of(provider, model) for rate in limit.rates), default=None)

    def counts_images(self, provider: str, model: str) -> bool:
        """Whether it matters how many pictures a call of this model asks for."""
        return any(rate.images for _, limit in self.of(provider, model) for rate in limit.rates)

    @property
    def rated(self) -> Mapping[str, float]:
        """Makers whose calls are counted in a time, and how far back they count (seconds)."""
        spans: dict[str, float] = {}
        for scope, limit in self.scopes.items():
            if limit.rates:
                provider = scope.partition(":")[0]
                spans[provider] = max(spans.get(provider, 0.0), limit.span_s)
        return spans

    @property
    def span_s(self) -> float:
        """How far back any call counts (seconds)."""
        return max((limit.span_s for limit in self.scopes.values()), default=0.0)


def parse_limits(text: str) -> Limits:
    """Limits as operators write them, over the defaults.

    "openai=50 images/60s, openai:gpt-image-2=20/60s, openai=8": what is said of a scope first takes the place of its
    default, and more of the same adds to it. A number alone is how many at once. "openai=tier3" is what OpenAI gives
    that tier, "ideogram=none" takes a default away.

    Raises:
        BadLimits: Names the part that is wrong.

    """
    scopes = dict(DEFAULTS)
    seen: dict[str, Limit] = {}
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        scope, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not _SCOPE.fullmatch(scope):
            raise _bad(part)
        seen[scope] = _with(seen.get(scope, Limit()), scope, value, part)
    for scope, limit in seen.items():
        default = scopes.get(scope, Limit())
        # How many at once says nothing of how many in a time: the other kind of default stays.
        kept = Limit(
            limit.rates or default.rates, limit.in_flight if limit.in_flight is not None else default.in_flight
        )
        scopes[scope] = kept if limit != Limit() else Limit()
    return Limits({scope: limit for scope, limit in scopes.items() if limit != Limit()})


def _with(limit: Limit, scope: str, value: str, part: str) -> Limit:
    if value == "none":
        return Limit()
    if scope == "openai" and value in OPENAI_TIERS:
        return replace(limit, rates=(*limit.rates, Rate(OPENAI_TIERS[value], 60.0, images=True)))
    if value.isascii() and value.isdigit():
        return replace(limit, in_flight=_count(value, part))
    found = _RATE.fullmatch(value)
    if found is None:
        raise _bad(part)
    count, images, number, unit = found.groups()
    window_s = (float(number) if number else 1.0) * _UNITS[unit]
    if not MIN_WINDOW_S <= window_s <= MAX_WINDOW_S:
        raise BadLimits(f"{part!r}: the time must be between {MIN_WINDOW_S} s and one day")
    return replace(limit, rates=(*limit.rates, Rate(_count(count, part), window_s, images=bool(images))))


def _count(text: str, part: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_COUNT:
        raise BadLimits(f"{part!r}: the number must be between 1 and {MAX_COUNT:,}; pause a provider to stop it")
    return count


def _bad(part: str) -> BadLimits:
    return BadLimits(
        f"{part!r} is no limit: write openai=50/60s (calls in a time), openai=20 images/1m (pictures in a time), "
        "openai:gpt-image-2=8 (at once), openai=tier2 or openai=none, comma separated"
    )
