import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadKey, StorageUnavailable
from jobs.storage import DiskStore, check_key, content_type_of, image_key, preview_key, thumbnail_key, upload_key
from tests.jobs.builders import png

KEY = "wf/run.png"


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "pictures", "http://host:8000/")


async def test_what_is_put_is_got_under_its_url(store: DiskStore) -> None:
    url = await store.put(KEY, png(), "image/png")
    assert url == "http://host:8000/images/wf/run.png"
    found = await store.get(KEY)
    assert found is not None
    assert (found.data, found.content_type) == (png(), "image/png")
    assert store.key_of(url) == store.key_of("/images/wf/run.png") == KEY


async def test_put_again_replaces_and_leaves_no_other_file(store: DiskStore) -> None:
    await asyncio.gather(*(store.put(KEY, bytes([number]) * 1000, "image/png") for number in range(8)))
    found = await store.get(KEY)
    assert found is not None
    assert len(set(found.data)) == 1
    assert [path.name for path in store.path(KEY).parent.iterdir()] == ["run.png"]


async def test_delete_forgets_and_may_be_repeated(store: DiskStore) -> None:
    await store.put(KEY, b"x", "image/png")
    for _ in range(2):
        await store.delete(KEY)
    assert await store.get(KEY) is None


async def test_a_disk_that_refuses_is_told_as_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = DiskStore(tmp_path / "file", "http://host")
    with pytest.raises(StorageUnavailable):
        await store.put(KEY, b"x", "image/png")


async def test_a_content_type_that_is_not_the_keys_is_refused(store: DiskStore) -> None:
    with pytest.raises(BadKey):
        await store.put(KEY, b"<html>", "text/html")


@pytest.mark.parametrize(
    "key",
    ["../run.png", "wf/../run.png", "/etc/x.png", "wf/run.svg", "wf/run.html", "run.png", "a/b/c.png", ".wf/run.png",
     "wf/.run.png", "wf/run.png\n", "wf\\run.png", "wf/", "", "wf/run", "wf/%2e%2e.png/x", "wf/r\0.png"],
)  # fmt: skip
def test_a_key_that_no_picture_has_is_refused(store: DiskStore, key: str) -> None:
    with pytest.raises(BadKey):
        check_key(key)
    with pytest.raises(BadKey):
        store.path(key)
    assert store.key_of("/images/" + key) is None


@given(st.text(max_size=40))
def test_no_key_leads_out_of_the_store(key: str) -> None:
    store = DiskStore(Path("/pictures"), "http://host")
    try:
        path = store.path(key)
    except BadKey:
        return
    assert path.resolve().is_relative_to("/pictures")


@pytest.mark.parametrize("url", ["http://evil/images/wf/run.png", "http://host:8000/other/wf/run.png", "", "x"])
def test_a_url_of_anything_else_has_no_key(store: DiskStore, url: str) -> None:
    assert store.key_of(url) is None


def test_keys_are_made_of_ids() -> None:
    assert image_key("wf", "r", 0, "jpg") == "wf/r.jpg"
    assert image_key("wf", "r", 2, "jpg") == "wf/r-2.jpg"
    assert thumbnail_key("wf", "r", 0) == "wf/r-thumb.webp"
    assert preview_key("wf", "r", 1, 3) == "wf/r-preview-1-3.webp"
    assert content_type_of(upload_key("wf", "ab", "png")) == "image/png"
