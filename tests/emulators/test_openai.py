"""The emulator, driven by the SDK and by plain HTTP: it is strict, and it does as it is told."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import openai
import pytest

from tests.emulators.openai import Behaviour, Hold, Kind, OpenAIEmulator

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def api() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator().serving() as emulator:
        yield emulator


@pytest.fixture
async def client(api: OpenAIEmulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=api.origin, headers={"authorization": "Bearer sk-x"}) as client:
        yield client


async def test_the_official_sdk_is_served(api: OpenAIEmulator) -> None:
    async with openai.AsyncOpenAI(api_key="sk-x", base_url=api.base_url, max_retries=0) as sdk:
        answer = await sdk.images.generate(model="gpt-image-2", prompt="a", n=2, size="1536x864")
    assert answer.data
    assert [base64.b64decode(image.b64_json or "") for image in answer.data] == api.made
    assert len(set(api.made)) == 2
    assert answer.size == "1536x864"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "b64_json"}, "response_format"),
        ({"seed": 1}, "seed"),
        ({"prompt": ""}, "prompt"),
        ({"n": 11}, "n"),
        ({"n": 1.5}, "n"),
        ({"size": "1000x1000"}, "size"),
        ({"size": "512x512"}, "size"),
        ({"size": "3088x1024"}, "size"),
        ({"size": "4096x2000"}, "size"),
        ({"quality": "hd"}, "quality"),
        ({"quality": "max"}, "quality"),
        ({"model": "dall-e-3"}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "n": 2}, "n"),
        ({"partial_images": 2}, "partial_images"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
    ],
)
async def test_what_openai_would_not_take_is_refused(
    fields: dict[str, object], param: str, client: httpx2.AsyncClient, api: OpenAIEmulator
) -> None:
    body = {"model": "gpt-image-2", "prompt": "a"} | fields
    answer = await client.post("/v1/images/generations", json=body)
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["param"] == param
    assert api.made == []


async def test_bodies_of_the_wrong_kind_are_refused(client: httpx2.AsyncClient) -> None:
    answers = [
        await client.post("/v1/images/generations", content=b"{}", headers={"content-type": "text/plain"}),
        await client.post("/v1/images/generations", content=b"[]", headers={"content-type": "application/json"}),
        await client.post("/v1/images/generations", content=b"{", headers={"content-type": "application/json"}),
        await client.post("/v1/images/edits", json={"prompt": "a"}),
        await client.post("/v1/images/edits", files={"image": ("a.png", b"GIF89a", "image/png")}),
        await client.post("/v1/images/edits", files={"mask": ("a.png", b"\x89PNG", "image/png")}),
        await client.post("/v1/images/generations", json={}, headers={"authorization": "x"}),
        await client.get("/v1/images/generations"),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 400, 400, 400, 401, 404]


async def test_a_behaviour_waits_for_its_prompt(client: httpx2.AsyncClient, api: OpenAIEmulator) -> None:
    api.script(Behaviour.refuse(500, match="never"), Behaviour(Kind.REFUSE, status=503, body={}, match="storm"))
    statuses = [
        (await client.post("/v1/images/generations", json={"model": "gpt-image-2", "prompt": prompt})).status_code
        for prompt in ("calm", "a storm", "a storm")
    ]
    assert statuses == [200, 503, 200]


async def test_a_held_answer_goes_on_when_it_is_released(client: httpx2.AsyncClient, api: OpenAIEmulator) -> None:
    api.script(Behaviour(hold=Hold.ANSWER))
    task = asyncio.create_task(client.post("/v1/images/generations", json={"model": "gpt-image-2", "prompt": "a"}))
    await api.wait_held()
    assert not task.done()
    api.release()
    assert (await task).status_code == 200
    assert api.held == 0


async def test_it_runs_as_a_process_with_admin_routes() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.emulators.openai", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        origin = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip().removesuffix("/v1")
        async with httpx2.AsyncClient(base_url=origin, headers={"authorization": "Bearer sk-x"}, timeout=30) as client:
            await _drive(client)
    finally:
        process.terminate()
        await process.wait()


async def _drive(client: httpx2.AsyncClient) -> None:
    behaviours = [{"hold": "answer", "match": "slow"}, {"kind": "refuse", "status": 500, "body": {"error": {}}}]
    await client.post("/admin/script", json={"behaviours": behaviours})
    request = {"model": "gpt-image-2", "prompt": "slow"}
    slow = asyncio.create_task(client.post("/v1/images/generations", json=request))
    while (await client.get("/admin/state")).json()["held"] == 0:
        assert not slow.done()
    refused = await client.post("/v1/images/generations", json=request | {"prompt": "quick"})
    assert (await client.post("/admin/release")).json() == {"released": 1}
    assert [refused.status_code, (await slow).status_code] == [500, 200]
    journal = (await client.get("/admin/journal")).json()["calls"]
    assert [call["path"] for call in journal] == ["/v1/images/generations"] * 2
    assert "authorization" not in journal[0]["headers"]
    state = (await client.post("/admin/reset")).json()
    assert (state["calls"], state["scripted"]) == (0, [])
    assert (await client.get("/admin/nothing")).status_code == 404
