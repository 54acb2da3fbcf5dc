import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]

from providers.base import Cost, Finished, ImageInput, ImageRequest
from providers.demo import DemoProvider, picture_size
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from tests.providers.builders import Heard, dimensions, image_request, picture


@pytest.fixture
async def demo() -> AsyncIterator[DemoProvider]:
    provider = DemoProvider(delay_s=0)
    yield provider
    await provider.aclose()


def demo_request(prompt: str = "a lake at sunset", **spec: object) -> ImageRequest:
    return image_request(prompt, model="darkroom-1", **({"size": (128, 96), "seed": 7} | spec))  # type: ignore[arg-type]


async def drawn(demo: DemoProvider, prompt: str = "a lake at sunset", **spec: object) -> bytes:
    result = await demo.submit(demo_request(prompt, **spec), Heard())
    return result.images[0].data or b""


def colours(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean red, green and blue."""
    pixels = np.asarray(pyvips.Image.new_from_buffer(data, "").numpy(), dtype=np.float64)
    mean: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = pixels.mean(axis=(0, 1))
    return mean


async def test_the_same_wish_gives_the_same_bytes(demo: DemoProvider) -> None:
    assert await drawn(demo) == await drawn(demo)


@pytest.mark.parametrize(
    "other", [{"prompt": "a lake at night"}, {"seed": 8}, {"size": (96, 128)}, {"style_modifiers": ("in winter",)}]
)
async def test_another_wish_gives_another_picture(other: dict[str, object], demo: DemoProvider) -> None:
    assert await drawn(demo) != await drawn(demo, **other)  # type: ignore[arg-type]


async def test_without_a_seed_an_attempt_repeats_its_run_and_a_new_run_differs(demo: DemoProvider) -> None:
    runs = [image_request("a lake", model="darkroom-1", run_id=run, size=(64, 64)) for run in ("a", "a", "b")]
    first, again, other = [(await demo.submit(run, Heard())).images[0] for run in runs]
    assert first == again
    assert first.data != other.data
    assert first.seed is not None


async def test_several_pictures_count_their_seeds_up(demo: DemoProvider) -> None:
    result = await demo.submit(demo_request(n=3), Heard())
    assert [image.seed for image in result.images] == [7, 8, 9]
    assert len({image.data for image in result.images}) == 3
    assert result.images[1].data == await drawn(demo, seed=8)


async def test_words_choose_the_colours(demo: DemoProvider) -> None:
    fire, ocean = colours(await drawn(demo, "abstract fire")), colours(await drawn(demo, "abstract ocean"))
    assert fire[0] > fire[2] + 30
    assert ocean[2] > ocean[0] + 30
    assert (
        colours(await drawn(demo, "a hill at night")).mean() < colours(await drawn(demo, "a hill in snow")).mean() - 40
    )


async def test_what_the_negative_prompt_names_is_not_drawn(demo: DemoProvider) -> None:
    avoided = colours(await drawn(demo, "abstract fire", negative_prompt="fire, flames"))
    assert abs(colours(await drawn(demo, "abstract fire")) - avoided).max() > 20


@pytest.mark.parametrize(
    "prompt",
    ["mountains", "a lake", "forest", "aurora", "dunes", "the sea", "a city", "space", "silk", "a rose", "x"],
)
@pytest.mark.parametrize("size", [(64, 64), (256, 80), (80, 256)])
async def test_every_scene_fits_every_aspect(prompt: str, size: tuple[int, int], demo: DemoProvider) -> None:
    for seed in range(3):
        data = await drawn(demo, prompt, size=size, seed=seed)
        assert dimensions(data) == size
        assert np.ptp(np.asarray(pyvips.Image.new_from_buffer(data, "").numpy())) > 40


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({"size": None}, (1024, 1024)),
        ({"size": (600, 400), "aspect_ratio": "1:1"}, (600, 400)),
        ({"size": None, "aspect_ratio": "16:9"}, (1280, 720)),
        ({"size": None, "aspect_ratio": "2:3"}, (1024, 1536)),
        ({"size": None, "aspect_ratio": "21:9"}, (1568, 672)),
        ({"size": None, "aspect_ratio": "4:1"}, (2048, 512)),
    ],
)
def test_the_size_follows_size_then_ratio_then_the_default(spec: dict[str, object], size: tuple[int, int]) -> None:
    assert picture_size(demo_request(**spec)) == size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (demo_request(" ", style_modifiers=("",)), "basePrompt"),
        (demo_request(size=(4096, 64)), "size"),
        (demo_request(size=(63, 64)), "size"),
        (demo_request(aspect_ratio="9:1"), "aspectRatio"),
        (demo_request(n=5), "n"),
        (image_request(model="gpt-image-2"), "model"),
    ],
)
async def test_what_it_does_not_offer_is_refused(request_: ImageRequest, field: str, demo: DemoProvider) -> None:
    with pytest.raises(RequestRefused) as caught:
        demo.check(request_)
    assert caught.value.field == field
    with pytest.raises(RequestRefused):
        await demo.submit(request_, Heard())


async def test_the_word_forbidden_shows_how_a_refusal_looks(demo: DemoProvider) -> None:
    demo.check(demo_request("a forbidden city"))
    with pytest.raises(ProviderError) as caught:
        await demo.submit(demo_request("a Forbidden city"), Heard())
    assert (caught.value.error_class, caught.value.kind) == (ErrorClass.PERMANENT, ErrorKind.POLICY)
    assert await drawn(demo, "unforbiddenly good")


async def test_it_costs_nothing_and_tells_what_it_left_out(demo: DemoProvider) -> None:
    result = await demo.submit(demo_request(quality="high"), Heard())
    assert result.cost == Cost(0, "free")
    assert result.adapted == ("The demo has one quality, so the quality was left out.",)


async def test_the_picture_develops_while_the_delay_runs() -> None:
    demo, heard = DemoProvider(delay_s=0.05), Heard()
    try:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await demo.submit(demo_request(size=(512, 512)), heard)
        assert loop.time() - started >= 0.05
    finally:
        await demo.aclose()
    fractions = [each.fraction for each in heard.progress]
    assert fractions == sorted(fractions, key=lambda fraction: fraction or 0)
    assert [dimensions(preview) for preview in heard.previews] == [(256, 256)] * 4
    assert all(each.preview.content_type == "image/webp" for each in heard.progress if each.preview)
    # Ever less blurred: ever more detail to encode.
    assert [len(preview) for preview in heard.previews] == sorted(len(preview) for preview in heard.previews)


async def test_without_a_delay_nobody_waits_for_previews(demo: DemoProvider) -> None:
    heard = Heard()
    await demo.submit(demo_request(), heard)
    assert heard.previews == []


async def test_an_edit_keeps_the_shapes_and_changes_the_light(demo: DemoProvider) -> None:
    before = await drawn(demo, "mountains in winter")
    request = image_request(
        "as a sunset",
        model="darkroom-1",
        seed=1,
        inputs=(ImageInput(before, "image/jpeg"),),
        previous_image="/images/a.jpg",
    )
    results = [await demo.submit(request, Heard()) for _ in range(2)]
    after = results[0].images[0].data or b""
    assert results[0] == results[1]
    assert dimensions(after) == (128, 96)
    grey = [
        np.asarray(pyvips.Image.new_from_buffer(data, "").colourspace("b-w").numpy()).ravel()
        for data in (before, after)
    ]
    assert np.corrcoef(grey[0], grey[1])[0, 1] > 0.8
    assert colours(after)[0] > colours(before)[0] + 20


def grey(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(pyvips.Image.new_from_buffer(data, "").colourspace("b-w").numpy()).ravel()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
async def test_an_edit_crops_to_a_size_that_is_asked_for(kind: str, demo: DemoProvider) -> None:
    request = image_request("gold", model="darkroom-1", size=(80, 120), inputs=(picture(kind=kind), picture()))
    result = await demo.submit(request, Heard())
    assert dimensions(result.images[0].data or b"") == (80, 120)
    assert result.adapted == ("The demo edits one picture, so only the first was used.",)


@pytest.mark.parametrize("data", [b"", b"<svg/>", picture().data[:40], picture(kind="gif").data])
async def test_a_picture_that_cannot_be_edited_is_told(data: bytes, demo: DemoProvider) -> None:
    request = image_request("gold", model="darkroom-1", inputs=(ImageInput(data, "image/png"),))
    with pytest.raises(ProviderError) as caught:
        await demo.submit(request, Heard())
    assert caught.value.kind is ErrorKind.BAD_REQUEST


async def test_an_edit_without_its_picture_is_refused(demo: DemoProvider) -> None:
    with pytest.raises(RequestRefused) as caught:
        await demo.submit(demo_request(previous_image="https://pictures.example/a.png"), Heard())
    assert caught.value.field == "previousImage"


async def test_a_cancelled_picture_is_let_go(demo: DemoProvider) -> None:
    task = asyncio.create_task(demo.submit(demo_request(size=(2048, 2048)), started := Started()))
    await started.event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await demo.submit(demo_request(), Heard()), Finished)


class Started(Heard):
    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    async def __call__(self, progress: object) -> None:
        self.event.set()


async def test_there_is_nothing_to_poll_or_cancel_elsewhere(demo: DemoProvider) -> None:
    await demo.cancel("x")
    with pytest.raises(ProviderError) as caught:
        await demo.poll("x")
    assert caught.value.kind is ErrorKind.EXPIRED
