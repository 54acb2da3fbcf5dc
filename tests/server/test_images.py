import pytest

from tests.server.api import Api, Reply, fields


@pytest.fixture
async def picture(api: Api) -> Reply:
    """A picture that was made, as the server serves it."""
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    return await api.get(job["imageUrl"])


async def test_pictures_and_thumbnails_are_served_for_ever_and_to_any_page(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    for url, kind in ((job["imageUrl"], "image/jpeg"), (job["thumbnailUrl"], "image/webp")):
        reply = await api.get(url)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == kind
        assert "immutable" in reply.headers["cache-control"]
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_copy_that_is_good_is_not_sent_again(api: Api, picture: Reply) -> None:
    path = picture.url.path
    for tags in (picture.headers["etag"], f'"other", W/{picture.headers["etag"]}', "*"):
        again = await api.get(path, if_none_match=tags)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == picture.headers["etag"]
    assert (await api.get(path, if_none_match='"other"')).status_code == 200
    assert (await api.get(path, if_modified_since=picture.headers["last-modified"])).status_code == 304


async def test_a_range_of_a_picture_is_served(api: Api, picture: Reply) -> None:
    part = await api.get(picture.url.path, range="bytes=0-7")
    assert (part.status_code, part.content) == (206, picture.content[:8])
    assert part.headers["content-range"] == f"bytes 0-7/{len(picture.content)}"


async def test_head_tells_the_length_without_the_picture(api: Api, picture: Reply) -> None:
    reply = await api.client.head(picture.url.path)
    assert reply.headers["content-length"] == str(len(picture.content))


@pytest.mark.parametrize(
    "key",
    [
        "w/none.png",
        "../darkroom.db",
        "..%2fdarkroom.db",
        "w/..%2f..%2fdarkroom.db",
        "%2fetc%2fpasswd",
        "w/x.svg",
        "w/.hidden.png",
        "w/%00.png",
        "w",
        "w/" + "x" * 300 + ".png",
    ],
)
async def test_no_key_leads_anywhere_else(api: Api, key: str) -> None:
    reply = await api.get(f"/images/{key}")
    assert reply.status_code == 404
    assert fields(reply) in (["key"], [])
