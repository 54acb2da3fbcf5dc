"""What the tests of providers share: OpenAI and a picture host on loopback, and an ear for progress."""

from collections.abc import AsyncIterator

import pytest

from providers.openai import OpenAIProvider
from tests.emulators.openai import OpenAIEmulator
from tests.providers.builders import Heard, PictureHost


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def api() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator().serving() as emulator:
        yield emulator


@pytest.fixture
async def host() -> AsyncIterator[PictureHost]:
    async with PictureHost().serving() as emulator:
        yield emulator


@pytest.fixture
async def provider(api: OpenAIEmulator) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider("sk-test", api.base_url, timeout_s=20)
    yield provider
    await provider.aclose()
