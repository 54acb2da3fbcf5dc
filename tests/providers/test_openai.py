import asyncio
import base64
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Cost, Finished, ImageInput, ImageRequest, Progress, Size
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from providers.json import Json
from providers.openai import OpenAIProvider, build_request, parse_completed, parse_partial, parse_response
from providers.openai_models import OFFERS, RETIRED, choose_size, table_cost, usage_cost
from tests.emulators.http import parse_multipart
from tests.emulators.openai import FREE_SIZES, MODELS, Behaviour, Hold, Kind, OpenAIEmulator
from tests.providers.builders import Heard, dimensions, image_request, picture

PNG = base64.b64encode(picture().data).decode()


async def failure(provider: OpenAIProvider, request: ImageRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.submit(request or image_request(), Heard())
    return caught.value


# What is sent.


def test_a_plain_request_says_no_more_than_it_must() -> None:
    assert build_request(image_request()).arguments() == {
        "model": "gpt-image-2", "prompt": "a lake", "size": "1024x1024", "n": 1, "partial_images": 2,
    }  # fmt: skip


def test_what_openai_does_not_know_is_folded_in_or_left_out_and_told() -> None:
    call = build_request(image_request("a lake.", style_modifiers=("ink",), negative_prompt="people", seed=3))
    assert call.prompt == "a lake., ink. Do not show: people."
    assert call.adapted == (
        "OpenAI has no negative prompt, so it was added to the prompt as a sentence.",
        "OpenAI takes no seed, so it was left out.",
    )


def test_several_pictures_are_not_streamed() -> None:
    call = build_request(image_request(n=4, quality="high"))
    assert not call.stream
    assert call.arguments() == {
        "model": "gpt-image-2", "prompt": "a lake", "size": "1024x1024", "n": 4, "quality": "high",
    }  # fmt: skip


def test_pictures_to_edit_are_named_by_what_they_are() -> None:
    mislabelled = ImageInput(picture(kind="webp").data, "image/png")
    call = build_request(image_request(inputs=(picture(), mislabelled)))
    assert [(name, kind) for name, _, kind in call.files] == [
        ("picture-0.png", "image/png"),
        ("picture-1.webp", "image/webp"),
    ]


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (image_request(""), "basePrompt", "Write a prompt"),
        (image_request("x" * 31_990, negative_prompt="y" * 50), "basePrompt", "32,000"),
        (image_request(n=11), "n", "1 to 10"),
        (image_request(quality="hd"), "quality", "Offered: auto, low, medium, high."),
        (image_request(quality="max"), "quality", "Offered: auto, low, medium, high."),
        (image_request(size=(512, 512)), "size", "655,360 to 8,294,400 pixels. Offered: 1024x1024, 1536x1024"),
        (image_request(size=(1000, 1000)), "size", "multiples of 16"),
        (image_request(size=(3200, 1024)), "size", "1:3 and 3:1"),
        (image_request(size=(3856, 2048)), "size", "at most 3840"),
        (image_request(size=(3840, 3840)), "size", "8,294,400"),
        (image_request(model="gpt-image-2.6-flare", size=(2048, 2048)), "size", "fixed sizes"),
        (image_request(aspect_ratio="4:1"), "aspectRatio", "1:3 to 3:1"),
        (image_request(model="dall-e-3"), "model", "Use gpt-image-2."),
        (image_request(model="gpt-image-1"), "model", "Use gpt-image-2.5-sunburst."),
        (image_request(model="sdxl"), "model", "Offered: gpt-image-2,"),
        (image_request(inputs=(picture(),) * 17), "previousImage", "at most 16"),
        (image_request(inputs=(picture(kind="gif"),)), "previousImage", "not image/gif"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(request_: ImageRequest, field: str, words: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        build_request(request_)
    assert caught.value.field == field
    assert words in caught.value.message


def test_a_picture_of_50_megabytes_is_too_large() -> None:
    huge = ImageInput(picture().data + bytes(50 * 1024 * 1024), "image/png")
    with pytest.raises(RequestRefused, match="less than 50 MB"):
        build_request(image_request(inputs=(huge,)))


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("1:1", (1024, 1024)), ("3:2", (1536, 1024)), ("2:3", (1024, 1536)), ("16:9", (1536, 864)), ("9:16", (864, 1536))],
)
def test_a_usual_ratio_gets_a_usual_size(ratio: str, size: Size) -> None:
    assert build_request(image_request(aspect_ratio=ratio)).size == f"{size[0]}x{size[1]}"


def test_a_model_with_fixed_sizes_takes_the_nearest_and_tells() -> None:
    call = build_request(image_request(model="gpt-image-2.6-flare", aspect_ratio="16:9"))
    assert call.size == "1536x1024"
    assert call.adapted == ("GPT Image 2.6 Flare does not offer 16:9; 1536x1024 comes nearest.",)


@given(st.floats(1 / 3, 3))
def test_every_ratio_gets_a_size_that_keeps_the_rules(ratio: float) -> None:
    text = f"{ratio:.4f}:1"
    spec = image_request(aspect_ratio=text if 1 / 3 <= float(text[:-2]) <= 3 else "1:1").spec
    size, _ = choose_size(OFFERS["gpt-image-2"], spec)
    assert choose_size(OFFERS["gpt-image-2"], image_request(size=size).spec) == (size, None)


def test_the_catalogue_and_the_emulator_agree_on_the_models() -> None:
    assert set(OFFERS) == MODELS
    assert {model for model, offer in OFFERS.items() if offer.free_sizes} == FREE_SIZES
    assert set(RETIRED.values()) <= MODELS
    assert not set(RETIRED) & MODELS


# What is read.


def test_tokens_become_money() -> None:
    usage: dict[str, Json] = {
        "input_tokens": 330, "input_tokens_details": {"text_tokens": 30, "image_tokens": 300}, "output_tokens": 1_000,
    }  # fmt: skip
    assert usage_cost(usage) == Cost(
        30 * 5 + 300 * 8 + 1_000 * 30, "usage", {"inputTextTokens": 30, "inputImageTokens": 300, "outputTokens": 1_000}
    )
    assert usage_cost({"input_tokens": 10, "output_tokens": 100}) == Cost(
        3_050, "usage", {"inputTextTokens": 10, "inputImageTokens": 0, "outputTokens": 100}
    )


@pytest.mark.parametrize("usage", [{}, {"output_tokens": "many"}, {"output_tokens": -4}, {"output_tokens": True}])
def test_usage_that_says_nothing_is_no_cost(usage: dict[str, Json]) -> None:
    assert usage_cost(usage) is None


def test_without_usage_the_price_list_counts_where_it_knows() -> None:
    assert table_cost("gpt-image-2", "1024x1024", "medium", 2) == Cost(106_000, "price", {"pictures": 2})
    assert table_cost("gpt-image-2-2026-04-21", "1024x1536", "low", 1) == Cost(5_000, "price", {"pictures": 1})
    assert table_cost("gpt-image-2", "1024x1024", "auto", 1) is None
    assert table_cost("gpt-image-2.6-flare", "1024x1024", "medium", 1) is None
    answer: Json = {"data": [{"b64_json": PNG}], "size": "1024x1024", "quality": "low", "usage": None}
    assert parse_response(answer, build_request(image_request())).cost == Cost(6_000, "price", {"pictures": 1})


def test_the_pictures_that_can_be_read_are_kept() -> None:
    entries: list[Json] = [None, {"b64_json": None}, {"b64_json": PNG, "revised_prompt": "x"}, {"b64_json": "%%"}]
    result = parse_response({"data": entries}, build_request(image_request(n=4)))
    assert [(image.data, image.content_type, image.revised_prompt) for image in result.images] == [
        (picture().data, "image/png", "x")
    ]
    assert result.adapted == ("OpenAI returned 1 of 4 pictures.",)
    assert result.cost is None


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "text",
        {},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": [{"b64_json": ""}]},
        {"data": [{"url": "https://pictures.example/a.png"}]},
        {"data": [{"b64_json": base64.b64encode(b"<html>").decode()}]},
    ],
)
def test_an_answer_without_a_picture_is_a_temporary_failure_perhaps_billed(payload: Json) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_response(payload, build_request(image_request()))
    assert (caught.value.error_class, caught.value.billing_ambiguous) == (ErrorClass.TEMPORARY, True)


def test_an_error_inside_a_good_answer_is_an_error() -> None:
    with pytest.raises(ProviderError) as caught:
        parse_response({"error": {"code": "insufficient_quota"}}, build_request(image_request()))
    assert caught.value.kind is ErrorKind.QUOTA


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(PNG),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "b64_json", "usage", "error", "output_tokens", "type"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_no_answer_can_break_the_reading(payload: Json) -> None:
    call = build_request(image_request())
    try:
        assert parse_response(payload, call).images
    except ProviderError as error:
        assert error.message  # noqa: PT017 - both outcomes are fine, a third is not.


def test_partial_pictures_are_previews() -> None:
    fractions = []
    for index in (0, 1, 7, None):
        progress = parse_partial({"b64_json": PNG, "partial_image_index": index})
        assert progress is not None
        assert progress.preview == picture()
        fractions.append(progress.fraction)
    assert fractions == [1 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert parse_partial({"b64_json": "%"}) is None


def test_the_last_event_of_a_stream_is_an_answer() -> None:
    result = parse_completed({"type": "image_generation.completed", "b64_json": PNG}, build_request(image_request()))
    assert [image.data for image in result.images] == [picture().data]


# Against the emulator.


async def test_a_picture_is_streamed_with_its_previews(
    provider: OpenAIProvider, api: OpenAIEmulator, heard: Heard
) -> None:
    result = await provider.submit(image_request(aspect_ratio="3:2"), heard)
    assert [each.fraction for each in heard.progress] == [1 / 3, 2 / 3]
    assert [*heard.previews, result.images[0].data] == api.made
    assert dimensions(api.made[-1]) == (64, 43)
    assert result.cost == Cost(
        2 * 5 + 1_256 * 30, "usage", {"inputTextTokens": 2, "inputImageTokens": 0, "outputTokens": 1_256}
    )


async def test_the_request_on_the_wire_is_what_openai_documents(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    await provider.submit(image_request(quality="low"), Heard())
    (call,) = api.calls
    assert call.json() == {
        "model": "gpt-image-2", "prompt": "a lake", "size": "1024x1024", "n": 1, "quality": "low",
        "partial_images": 2, "stream": True,
    }  # fmt: skip
    assert call.headers["authorization"] == "Bearer sk-test"


async def test_several_pictures_come_in_one_answer(provider: OpenAIProvider, api: OpenAIEmulator, heard: Heard) -> None:
    result = await provider.submit(image_request(n=3), heard)
    assert [image.data for image in result.images] == api.made
    assert heard.progress == []


@pytest.mark.parametrize("count", [1, 2])
async def test_pictures_are_edited(count: int, provider: OpenAIProvider, api: OpenAIEmulator, heard: Heard) -> None:
    inputs = tuple(picture(kind=kind) for kind in ("jpg", "webp")[:count])
    result = await provider.submit(image_request("in winter", inputs=inputs, previous_image="/a.png"), heard)
    parts = parse_multipart(api.calls[0].headers["content-type"], api.calls[0].body)
    sent = [(part.name, part.data, part.content_type) for part in parts if part.name.startswith("image")]
    name = "image" if count == 1 else "image[]"
    assert sent == [(name, each.data, each.content_type) for each in inputs]
    assert api.asked[0].edit
    assert len(heard.previews) == 2
    assert result.cost
    assert result.cost.detail["inputImageTokens"] == 300 * count


async def test_several_edits_come_in_one_answer(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    result = await provider.submit(image_request(n=2, inputs=(picture(),)), Heard())
    assert [image.data for image in result.images] == api.made


async def test_an_edit_whose_picture_is_missing_is_never_sent(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    with pytest.raises(RequestRefused) as caught:
        await provider.submit(image_request(previous_image="/a.png"), Heard())
    assert caught.value.field == "previousImage"
    assert api.calls == []


async def test_two_at_once_do_not_mix_up_their_pictures(provider: OpenAIProvider) -> None:
    first, second = await asyncio.gather(
        provider.submit(image_request("a", size=(1536, 1024)), Heard()),
        provider.submit(image_request("b", size=(1024, 1536)), Heard()),
    )
    assert [dimensions(result.images[0].data or b"") for result in (first, second)] == [(64, 43), (43, 64)]


async def test_a_stream_without_previews_is_fine(provider: OpenAIProvider, api: OpenAIEmulator, heard: Heard) -> None:
    api.script(Behaviour(previews=0))
    assert (await provider.submit(image_request(), heard)).images
    assert heard.progress == []


async def test_a_gateway_that_does_not_stream_is_understood(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    api.script(Behaviour(Kind.PLAIN))
    assert [image.data for image in (await provider.submit(image_request(), Heard())).images] == api.made


async def test_fewer_pictures_than_asked_for_are_kept_and_told(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    api.script(Behaviour(images=[PNG, PNG, None]))
    result = await provider.submit(image_request(n=4), Heard())
    assert len(result.images) == 2
    assert result.adapted == ("OpenAI returned 2 of 4 pictures.",)


async def test_an_answer_without_usage_has_its_list_price(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    api.script(Behaviour(usage=False))
    assert (await provider.submit(image_request(), Heard())).cost == Cost(53_000, "price", {"pictures": 1})


TEMPORARY_BILLED = [
    Behaviour(Kind.CUT),
    Behaviour(Kind.CUT, previews=0),
    Behaviour(Kind.BREAK_OFF),
    Behaviour(Kind.RESET),
    Behaviour(images=[None]),
    Behaviour(images=["not base64"]),
    Behaviour(images=[base64.b64encode(b"\x89PN").decode()]),
    Behaviour.text('{"created": 17, "da'),
    Behaviour.text("{}"),
    Behaviour.text("null"),
    Behaviour.text('{"data": []}'),
    Behaviour.text("<html>", content_type="text/html"),
    Behaviour.text("data: {broken\n\n", content_type="text/event-stream"),
    Behaviour.text("data: [1, 2]\n\ndata: 3\n\n", content_type="text/event-stream"),
    Behaviour.text('data: {"type": "image_generation.completed"}\n\n', content_type="text/event-stream"),
    Behaviour.text("", content_type="text/event-stream"),
    Behaviour.refuse(504),
]


@pytest.mark.parametrize(
    ("behaviour", "n"),
    # A whole answer has no end to cut.
    [(behaviour, n) for n in (1, 2) for behaviour in TEMPORARY_BILLED if n == 1 or behaviour.kind is not Kind.CUT],
    ids=str,
)
async def test_a_lost_or_broken_answer_is_temporary_perhaps_billed_and_asked_for_once(
    behaviour: Behaviour, n: int, provider: OpenAIProvider, api: OpenAIEmulator
) -> None:
    api.script(behaviour)
    error = await failure(provider, image_request(n=n))
    assert (error.error_class, error.billing_ambiguous) == (ErrorClass.TEMPORARY, True)
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("behaviour", "error_class", "kind", "wait_s"),
    [
        (Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after": "7"}), ErrorClass.RATE_LIMIT, None, 7),
        (
            Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after-ms": "150"}),
            ErrorClass.RATE_LIMIT,
            None,
            0.15,
        ),
        (
            Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after": "3600"}),
            ErrorClass.RATE_LIMIT,
            None,
            600,
        ),
        (
            Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after": "-1"}),
            ErrorClass.RATE_LIMIT,
            None,
            None,
        ),
        (Behaviour.refuse(429, "rate_limit_exceeded"), ErrorClass.RATE_LIMIT, None, None),
        (Behaviour.refuse(429, "insufficient_quota"), ErrorClass.PERMANENT, ErrorKind.QUOTA, None),
        (Behaviour.refuse(500, "server_error"), ErrorClass.TEMPORARY, None, None),
        (Behaviour.text("<html>Bad gateway</html>", 502, "text/html"), ErrorClass.TEMPORARY, None, None),
        (Behaviour.text("", 503, **{"retry-after": "4"}), ErrorClass.TEMPORARY, None, 4),
        (Behaviour.refuse(400, "invalid_value"), ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST, None),
        (Behaviour.refuse(401, "invalid_api_key"), ErrorClass.AUTH_ERROR, None, None),
        (Behaviour.refuse(403), ErrorClass.AUTH_ERROR, None, None),
        (Behaviour.refuse(404, "model_not_found"), ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST, None),
        (Behaviour.refuse(413), ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST, None),
        (Behaviour.refuse(422), ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST, None),
        (Behaviour.moderated("violence"), ErrorClass.PERMANENT, ErrorKind.POLICY, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 2])
async def test_a_refusal_is_understood_and_asked_for_once(  # noqa: PLR0913, PLR0917
    behaviour: Behaviour,
    error_class: ErrorClass,
    kind: ErrorKind | None,
    wait_s: float | None,
    n: int,
    provider: OpenAIProvider,
    api: OpenAIEmulator,
) -> None:
    api.script(behaviour)
    error = await failure(provider, image_request(n=n))
    assert (error.error_class, error.kind, error.retry_after_s) == (error_class, kind, wait_s)
    assert len(api.calls) == 1


async def test_a_moderated_prompt_says_why(provider: OpenAIProvider, api: OpenAIEmulator) -> None:
    api.script(Behaviour.moderated("violence"))
    error = await failure(provider)
    assert error.message == "OpenAI refused this prompt: violence. Change it and try again."
    assert error.vendor_code == "moderation_blocked"


@pytest.mark.parametrize(
    ("body", "error_class", "kind"),
    [
        ({"error": {"code": "server_error", "message": "Broken."}}, ErrorClass.TEMPORARY, None),
        ({"type": "error", "code": "server_error", "message": "Broken."}, ErrorClass.TEMPORARY, None),
        ({"error": {"code": "moderation_blocked"}}, ErrorClass.PERMANENT, ErrorKind.POLICY),
        ({"type": "error", "code": "moderation_blocked"}, ErrorClass.PERMANENT, ErrorKind.POLICY),
        ({"error": {"type": "insufficient_quota"}}, ErrorClass.PERMANENT, ErrorKind.QUOTA),
    ],
)
async def test_an_error_event_ends_a_stream_after_its_previews(
    body: dict[str, Json],
    error_class: ErrorClass,
    kind: ErrorKind | None,
    provider: OpenAIProvider,
    api: OpenAIEmulator,
) -> None:
    api.script(Behaviour(Kind.STREAM_ERROR, body=body))
    heard = Heard()
    with pytest.raises(ProviderError) as caught:
        await provider.submit(image_request(), heard)
    assert (caught.value.error_class, caught.value.kind) == (error_class, kind)
    assert len(heard.previews) == 2


@pytest.fixture
async def hasty(api: OpenAIEmulator) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider("sk-test", api.base_url, timeout_s=0.3)
    yield provider
    await provider.aclose()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("behaviour", [Behaviour(hold=Hold.ANSWER), Behaviour(Kind.DRIP)], ids=str)
async def test_an_answer_that_never_ends_has_a_time_limit(
    behaviour: Behaviour, n: int, hasty: OpenAIProvider, api: OpenAIEmulator
) -> None:
    api.script(behaviour)
    error = await failure(hasty, image_request(n=n))
    assert (error.error_class, error.kind, error.billing_ambiguous) == (ErrorClass.TEMPORARY, ErrorKind.TIMEOUT, True)
    assert len(api.calls) == 1


async def test_nobody_at_the_other_end_costs_nothing() -> None:
    provider = OpenAIProvider("sk-test", "http://127.0.0.1:9/v1", timeout_s=5)
    error = await failure(provider)
    await provider.aclose()
    assert (error.error_class, error.billing_ambiguous) == (ErrorClass.TEMPORARY, False)


async def test_a_wrong_key_is_an_authentication_error(api: OpenAIEmulator) -> None:
    provider = OpenAIProvider("wrong", api.base_url)
    error = await failure(provider)
    await provider.aclose()
    assert error.error_class is ErrorClass.AUTH_ERROR


async def test_a_cancelled_request_closes_its_connection_and_leaves_the_provider_usable(
    provider: OpenAIProvider, api: OpenAIEmulator, heard: Heard
) -> None:
    api.script(Behaviour(hold=Hold.RESULT))
    task = asyncio.create_task(provider.submit(image_request(), heard))
    await api.wait_held()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    api.release()
    assert isinstance(await provider.submit(image_request(), Heard()), Finished)


async def test_a_sink_that_fails_is_not_blamed_on_openai(provider: OpenAIProvider) -> None:
    async def broken(_: Progress) -> None:
        raise ValueError("the sink")

    with pytest.raises(ValueError, match="the sink"):
        await provider.submit(image_request(), broken)


async def test_a_sink_that_times_out_is_not_blamed_on_openai(provider: OpenAIProvider) -> None:
    async def broken(_: Progress) -> None:
        raise TimeoutError("the sink")

    with pytest.raises(TimeoutError, match="the sink"):
        await provider.submit(image_request(), broken)


async def test_there_is_nothing_to_poll_or_cancel(provider: OpenAIProvider) -> None:
    await provider.cancel("x")
    with pytest.raises(ProviderError) as caught:
        await provider.poll("x")
    assert caught.value.kind is ErrorKind.EXPIRED


async def test_retired_routes_and_fields_are_refused_by_the_emulator_too(api: OpenAIEmulator) -> None:
    body = {"model": "gpt-image-2", "prompt": "a", "response_format": "url"}
    async with httpx2.AsyncClient(base_url=api.origin, headers={"authorization": "Bearer sk-x"}) as client:
        answer = await client.post("/v1/images/generations", json=body)
        gone = await client.post("/v1/images/variations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"], gone.status_code) == (400, "response_format", 404)
    assert json.loads(api.calls[0].body) == body
