from collections.abc import AsyncIterator

import pytest

from providers.demo import DemoProvider
from providers.errors import UnknownModel, UnknownProvider
from providers.openai import OpenAIProvider
from providers.registry import Registry


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry([DemoProvider(), OpenAIProvider("sk-test")])
    yield registry
    await registry.aclose()


def answer(registry: Registry, provider: str | None, model: str | None) -> tuple[str, str]:
    chosen, info = registry.resolve(provider, model)
    return chosen.name, info.id


def test_what_is_left_out_comes_from_the_defaults(registry: Registry) -> None:
    assert answer(registry, None, None) == ("openai", "gpt-image-2")
    assert answer(registry, "demo", None) == ("demo", "darkroom-1")
    assert answer(registry, "", "") == ("openai", "gpt-image-2")


def test_a_model_alone_finds_its_provider(registry: Registry) -> None:
    assert answer(registry, None, "darkroom-1") == ("demo", "darkroom-1")
    assert answer(registry, None, "gpt-image-2.6-flare") == ("openai", "gpt-image-2.6-flare")


def test_a_default_model_is_used_with_its_provider_named_or_not(registry: Registry) -> None:
    chosen = Registry(registry.providers, "openai", "gpt-image-2.6-flare")
    assert answer(chosen, "openai", None) == answer(chosen, None, None) == ("openai", "gpt-image-2.6-flare")


def test_a_default_model_alone_settles_the_default_provider(registry: Registry) -> None:
    assert answer(Registry(registry.providers, None, "darkroom-1"), None, None) == ("demo", "darkroom-1")


def test_with_nothing_else_the_demo_is_the_default(registry: Registry) -> None:
    assert answer(Registry(registry.providers[:1], None, None), None, None) == ("demo", "darkroom-1")


def test_what_is_unknown_is_told_with_what_is_known(registry: Registry) -> None:
    with pytest.raises(UnknownProvider, match="Configured: demo, openai"):
        registry.get("midjourney")
    with pytest.raises(UnknownModel, match=r"not offered by Demo\. Offered: darkroom-1"):
        registry.resolve("demo", "gpt-image-2")
    with pytest.raises(UnknownModel, match="any configured provider"):
        registry.resolve(None, "sdxl")


@pytest.mark.parametrize("provider", ["openai", None])
def test_a_retired_model_names_its_successor(provider: str | None, registry: Registry) -> None:
    with pytest.raises(UnknownModel, match=r"no longer offered by OpenAI\. Use 'gpt-image-2'") as caught:
        registry.resolve(provider, "dall-e-3")
    assert caught.value.successor == "gpt-image-2"


def test_wrong_defaults_are_told_at_the_start(registry: Registry) -> None:
    with pytest.raises(UnknownProvider):
        Registry(registry.providers, "midjourney")
    with pytest.raises(UnknownModel):
        Registry(registry.providers, "demo", "gpt-image-2")
    with pytest.raises(UnknownModel):
        Registry(registry.providers, None, "sdxl")
    with pytest.raises(UnknownProvider):
        Registry([])
    with pytest.raises(ValueError, match="same name"):
        Registry([registry.providers[0], registry.providers[0]])


def test_a_client_learns_everything_it_needs_for_a_choice(registry: Registry) -> None:
    demo = registry.describe()[0]
    assert demo == {
        "name": "demo",
        "label": "Demo",
        "demo": True,
        "models": [
            {
                "id": "darkroom-1",
                "label": "Darkroom 1",
                "sizes": ["1024x1024", "1536x1024", "1024x1536", "1280x720", "720x1280", "768x768", "512x512"],
                "defaultSize": "1024x1024",
                "supports": ["edit", "n", "negative_prompt", "previews", "seed"],
                "maxN": 4,
                "estimateUsd": 0.0,
                "pricedOn": None,
            }
        ],
    }


async def test_closing_twice_is_harmless(registry: Registry) -> None:
    await registry.aclose()
    await registry.aclose()
