import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import ModelInfo, PromptSpec
from providers.demo import DemoProvider
from providers.openai import OpenAIProvider
from providers.openai_models import OFFERS, PICTURES_PRICED_ON, expected_cost
from providers.prices import Estimate, estimate


@pytest.mark.parametrize(
    ("spec", "usd_micros"),
    [
        (PromptSpec("x"), 53_000),
        (PromptSpec("x", quality="auto"), 53_000),
        (PromptSpec("x", quality="low"), 6_000),
        (PromptSpec("x", quality="high", n=3), 633_000),
        (PromptSpec("x", size=(1024, 1536)), 41_000),
        (PromptSpec("x", size=(1536, 1024), quality="high"), 165_000),
        (PromptSpec("x", aspect_ratio="2:3"), 41_000),
        (PromptSpec("x", size=(2048, 2048)), 212_000),
    ],
)
def test_a_picture_is_priced_by_size_quality_and_number(spec: PromptSpec, usd_micros: int) -> None:
    assert expected_cost("gpt-image-2", spec) == Estimate(usd_micros, PICTURES_PRICED_ON)


def test_what_has_no_known_price_has_no_estimate() -> None:
    assert expected_cost("gpt-image-2.6-flare", PromptSpec("x")) is None
    assert expected_cost("none", PromptSpec("x")) is None
    assert expected_cost("gpt-image-2", PromptSpec("x", size=(17, 17))) is None


@given(st.sampled_from(sorted(OFFERS)), st.integers(1, 10), st.sampled_from([None, "low", "medium", "high"]))
def test_more_pictures_never_cost_less(model: str, n: int, quality: str | None) -> None:
    one, many = (expected_cost(model, PromptSpec("x", quality=quality, n=count)) for count in (1, n))
    assert (one is None) == (many is None)
    assert one is None or many is None or many.usd_micros == n * one.usd_micros


async def test_a_maker_without_prices_of_its_own_is_priced_by_its_model() -> None:
    demo = DemoProvider(0)
    assert estimate(demo, demo.models[0], PromptSpec("x", n=4)) == Estimate(0, None)
    dated = ModelInfo("m", "M", (), frozenset(), 7, (1, 1), 4, dt.date(2026, 1, 2))
    assert estimate(demo, dated, PromptSpec("x", n=2)) == Estimate(14, dt.date(2026, 1, 2))
    unknown = ModelInfo("m", "M", (), frozenset(), None, (1, 1))
    assert estimate(demo, unknown, PromptSpec("x")) is None
    await demo.aclose()
    paid = OpenAIProvider("key")
    assert estimate(paid, paid.models[0], PromptSpec("x")) == Estimate(53_000, PICTURES_PRICED_ON)
    await paid.aclose()
