import tempfile
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from providers.addresses import Address
from providers.base import ImageInput, picture_type
from providers.errors import ErrorClass, ErrorKind, ProviderError
from providers.guarded import resolve_host
from providers.http import fetch_image
from tests.providers.builders import PictureHost, picture

LOOPBACK = ["127.0.0.1"]
PNG = picture()


def names(**hosts: str) -> "Names":
    return Names({host.replace("_", "."): [ip_address(each) for each in text.split()] for host, text in hosts.items()})


class Names:
    """A name server of our own, which remembers what it was asked."""

    def __init__(self, hosts: dict[str, list[Address]]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.hosts:
            raise OSError("unknown host")
        return self.hosts[host]


async def fetched(url: str, **options: Any) -> ImageInput:
    """What came into the file, typed as a reader of it would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        await fetch_image(url, path, **options)
        data = path.read_bytes()
    return ImageInput(data, picture_type(data) or "")


async def refusal(url: str, allow: Sequence[str] = LOOPBACK, **options: object) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await fetched(url, allow=allow, **options)
    return caught.value


async def test_a_picture_is_downloaded_and_typed_by_its_bytes(host: PictureHost) -> None:
    host.pages["/a"] = (200, {"content-type": "application/octet-stream"}, PNG.data)
    assert await fetched(f"{host.origin}/a?b=c", allow=LOOPBACK) == PNG
    assert host.journal[0].headers["host"] == f"127.0.0.1:{host.port}"
    assert host.journal[0].headers["accept-encoding"] == "identity"


async def test_the_connection_goes_to_the_checked_address_and_keeps_the_name(host: PictureHost) -> None:
    host.pages["/a"] = (200, {}, PNG.data)
    resolve = names(pictures_example="127.0.0.1")
    url = f"http://pictures.example:{host.port}/a"
    assert await fetched(url, allow=LOOPBACK, resolve=resolve) == PNG
    assert host.journal[0].headers["host"] == f"pictures.example:{host.port}"
    assert resolve.asked == ["pictures.example"]


async def test_the_next_address_is_tried_where_one_does_not_answer(host: PictureHost) -> None:
    host.pages["/a"] = (200, {}, PNG.data)
    resolve = names(pictures_example="127.9.9.9 127.0.0.1")
    url = f"http://pictures.example:{host.port}/a"
    assert await fetched(url, allow=["127.0.0.0/8"], resolve=resolve) == PNG


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1", "http://[::1]", "http://2130706433", "http://0x7f.1", "http://localhost"]
)
async def test_private_addresses_are_refused_in_every_spelling(origin: str, host: PictureHost) -> None:
    error = await refusal(f"{origin}:{host.port}/a", allow=())
    assert (error.error_class, error.kind) == (ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST)
    assert host.journal == []


async def test_one_private_address_among_public_ones_is_enough_to_refuse(host: PictureHost) -> None:
    resolve = names(pictures_example="8.8.8.8 127.0.0.1")
    error = await refusal(f"http://pictures.example:{host.port}/a", allow=(), resolve=resolve)
    assert "not on the public internet" in error.message


async def test_a_host_can_be_allowed_by_name(host: PictureHost) -> None:
    host.pages["/a"] = (200, {}, PNG.data)
    url, resolve = f"http://localhost:{host.port}/a", names(localhost="127.0.0.1")
    assert await fetched(url, allow=["LOCALHOST"], resolve=resolve) == PNG


async def test_redirects_are_followed(host: PictureHost) -> None:
    host.pages |= {f"/{i}": (302, {"location": f"/{i + 1}"}, b"") for i in range(3)}
    host.pages["/3"] = (200, {}, PNG.data)
    assert await fetched(f"{host.origin}/0", allow=LOOPBACK) == PNG


async def test_a_fourth_redirect_is_too_many(host: PictureHost) -> None:
    host.pages["/0"] = (302, {"location": "/0"}, b"")
    assert "more than 3 times" in (await refusal(f"{host.origin}/0")).message
    assert len(host.journal) == 4


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "http://127.0.0.2/a", "file:///etc/passwd", "//user:pw@host/a", ""]
)
async def test_a_redirect_is_checked_like_the_first_address(location: str, host: PictureHost) -> None:
    host.pages["/0"] = (302, {"location": location}, b"")
    error = await refusal(f"{host.origin}/0")
    assert (error.error_class, error.kind) == (ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST)
    assert len(host.journal) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "ftp://a/b",
        "http://",
        "http://u:p@127.0.0.1/",
        "http://[::1/",
        "http://\u0131\u0300..com/",
    ],
)
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    assert (await refusal(url)).error_class is ErrorClass.PERMANENT


async def test_an_unknown_host_may_be_known_later() -> None:
    assert (await refusal("http://nowhere.example/a", resolve=names())).error_class is ErrorClass.TEMPORARY
    assert (await refusal("http://a.example/a", resolve=names(a_example=""))).error_class is ErrorClass.TEMPORARY


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_link_that_is_gone_has_expired(status: int, host: PictureHost) -> None:
    host.pages["/a"] = (status, {}, b"")
    error = await refusal(f"{host.origin}/a")
    assert (error.error_class, error.kind, error.vendor_code) == (ErrorClass.PERMANENT, ErrorKind.EXPIRED, str(status))


async def test_other_answers_say_whether_to_come_back(host: PictureHost) -> None:
    host.pages["/busy"] = (429, {"retry-after": "9"}, b"")
    host.pages["/down"] = (503, {"retry-after-ms": "1500"}, b"")
    host.pages["/odd"] = (418, {}, b"")
    busy, down, odd = [await refusal(f"{host.origin}/{path}") for path in ("busy", "down", "odd")]
    assert (busy.error_class, busy.retry_after_s) == (ErrorClass.RATE_LIMIT, 9)
    assert (down.error_class, down.retry_after_s) == (ErrorClass.TEMPORARY, 1.5)
    assert odd.error_class is ErrorClass.PERMANENT


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({"content-type": "text/html; charset=utf-8"}, PNG.data, "text/html"),
        ({"content-type": "image/png"}, b"<html>gone</html>", "no picture"),
        ({"content-type": "image/svg+xml"}, b"<svg/>", "no picture"),
        ({"content-encoding": "gzip"}, PNG.data, "compressed"),
        ({}, PNG.data + b"x" * 5000, "larger than"),
        ({"content-length": "314572800"}, PNG.data, "larger than"),
    ],
)
async def test_what_is_no_picture_or_too_large_is_refused(
    headers: dict[str, str], body: bytes, words: str, host: PictureHost
) -> None:
    host.pages["/a"] = (200, headers, body)
    error = await refusal(f"{host.origin}/a", max_bytes=4096)
    assert error.error_class is ErrorClass.PERMANENT
    assert words in error.message


async def test_an_empty_file_may_be_filled_later(host: PictureHost) -> None:
    host.pages["/a"] = (200, {}, b"")
    assert (await refusal(f"{host.origin}/a")).error_class is ErrorClass.TEMPORARY


async def test_a_body_without_a_length_is_counted_while_it_comes(host: PictureHost) -> None:
    assert "larger than" in (await refusal(f"{host.origin}/drip", max_bytes=100_000)).message


async def test_a_broken_connection_is_worth_another_try(host: PictureHost) -> None:
    assert (await refusal(f"{host.origin}/reset")).error_class is ErrorClass.TEMPORARY
    host.pages["/short"] = (200, {"content-length": "9999"}, PNG.data)
    assert (await refusal(f"{host.origin}/short")).error_class is ErrorClass.TEMPORARY


async def test_everything_together_has_a_time_limit(host: PictureHost) -> None:
    error = await refusal(f"{host.origin}/never", timeout_s=0.1)
    assert (error.error_class, error.kind) == (ErrorClass.TEMPORARY, ErrorKind.TIMEOUT)


async def test_names_of_this_machine_resolve() -> None:
    assert ip_address("127.0.0.1") in await resolve_host("localhost", 80)
