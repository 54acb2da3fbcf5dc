import asyncio
import struct
import zlib
from typing import Any

import pytest
import pyvips  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadImage
from jobs.images import FORMATS, MAX_BYTES, MAX_PIXELS, ImageWorkshop, inspect, prepare, sniff, thumbnail
from tests.jobs.builders import png


def noise(width: int, height: int) -> Any:
    """An RGB picture that does not compress to nothing."""
    return (
        pyvips.Image.gaussnoise(width, height, mean=128, sigma=40, seed=1)
        .cast("uchar")
        .bandjoin(
            [pyvips.Image.gaussnoise(width, height, mean=90, sigma=40, seed=index).cast("uchar") for index in (2, 3)]
        )
        .copy(interpretation="srgb")
    )


def encoded(suffix: str, width: int = 320, height: int = 200, **options: Any) -> bytes:
    return bytes(noise(width, height).write_to_buffer(suffix, **options))


SAMPLES = {
    "png": encoded(".png"),
    "jpg": encoded(".jpg"),
    "webp": encoded(".webp"),
    "gif": encoded(".gif"),
    "avif": bytes(noise(320, 200).heifsave_buffer(compression="av1", effort=0)),
}


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A tiny PNG that claims to be enormous."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("extension", list(SAMPLES))
def test_every_kind_is_told_by_its_content(extension: str) -> None:
    picture = inspect(SAMPLES[extension])
    assert (picture.width, picture.height, picture.format.extension) == (320, 200, extension)
    assert picture.content_type == f"image/{'jpeg' if extension == 'jpg' else extension}"
    assert picture.bytes == len(SAMPLES[extension])
    assert len(FORMATS) == len(SAMPLES)


@pytest.mark.parametrize("extension", list(SAMPLES))
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off_is_refused(extension: str, part: float) -> None:
    cut = SAMPLES[extension][: int(len(SAMPLES[extension]) * part)]
    for check in (inspect, thumbnail, prepare):
        with pytest.raises(BadImage):
            check(cut)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><html><body>Error</body></html>", "web page"),
        (b"  <html>", "web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"error": "no"}', "JSON"),
        (b"", "empty"),
        (b"%PDF-1.7", "no PNG"),
        (b"BM" + b"\0" * 60, "no PNG"),
        (b"II*\0" + b"\0" * 60, "no PNG"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        prepare(data)


@pytest.mark.parametrize("size", [(30_000, 30_000), (8_000, 5_000), (16_385, 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert MAX_PIXELS < 8_000 * 5_000
    with pytest.raises(BadImage, match="too large"):
        prepare(bomb(*size))


def test_a_file_of_too_many_bytes_is_refused_unread() -> None:
    with pytest.raises(BadImage, match="MB"):
        prepare(b"\0" * (MAX_BYTES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\0\0\0\x1cftypavif"):
        with pytest.raises(BadImage):
            prepare(start + data)


@given(st.integers(1, 900), st.integers(1, 900))
def test_a_thumbnail_fits_keeps_the_shape_and_enlarges_nothing(width: int, height: int) -> None:
    small = inspect(thumbnail(png(width, height)))
    assert max(small.width, small.height) <= 300
    if max(width, height) <= 300:
        assert (small.width, small.height) == (width, height)
    else:
        scale = 300 / max(width, height)
        assert abs(small.width - width * scale) <= 1
        assert abs(small.height - height * scale) <= 1


def test_a_thumbnail_carries_no_metadata() -> None:
    image = noise(64, 64).copy()
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Copyright", "secret person")
    original = bytes(image.jpegsave_buffer())
    assert b"secret person" in original
    assert b"secret person" not in thumbnail(original)
    assert b"EXIF" not in thumbnail(original)


def test_a_picture_turned_by_exif_is_measured_and_shrunk_as_it_is_looked_at() -> None:
    image = noise(640, 320).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    turned = prepare(bytes(image.jpegsave_buffer()))
    assert (turned.picture.width, turned.picture.height) == (320, 640)
    small = inspect(turned.thumbnail)
    assert (small.width, small.height) == (150, 300)


@pytest.mark.parametrize("interpretation", ["cmyk", "b-w", "rgb16"])
def test_other_colour_spaces_make_thumbnails_too(interpretation: str) -> None:
    image = noise(400, 400).colourspace(interpretation)
    data = bytes(image.jpegsave_buffer() if interpretation == "cmyk" else image.pngsave_buffer())
    assert inspect(thumbnail(data)).width == 300


def test_a_thumbnail_keeps_transparency() -> None:
    image = noise(400, 300).bandjoin(128)
    small = pyvips.Image.webpload_buffer(thumbnail(bytes(image.pngsave_buffer())))
    assert small.hasalpha()


def test_a_kind_is_not_what_its_sender_calls_it() -> None:
    assert sniff(SAMPLES["jpg"]).content_type == "image/jpeg"


async def test_the_workshop_works_off_the_loop() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    big = encoded(".png", 2000, 1500)
    async with ImageWorkshop() as workshop:
        counting = asyncio.ensure_future(count())
        prepared = await asyncio.gather(*(workshop.prepare(big) for _ in range(4)))
        counting.cancel()
        assert {made.picture.width for made in prepared} == {2000}
        assert (await workshop.inspect(big)).height == 1500
        with pytest.raises(BadImage):
            await workshop.thumbnail(b"nothing")
    assert turns > 100
