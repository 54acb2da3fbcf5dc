import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.json import Json
from crdt.values import is_data_url
from jobs.errors import BadImage
from jobs.uploads import data_urls, decode


@given(st.binary(max_size=300))
def test_base64_is_decoded(data: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert is_data_url(url)
    assert decode(url) == data


def test_percent_encoding_is_decoded_in_both_forms() -> None:
    assert decode("data:text/plain,a%20b") == b"a b"
    assert decode("data:image/png;BASE64,QUI%3D") == b"AB"


@pytest.mark.parametrize("url", ["data:image/png;base64,%%%", "data:image/png;base64,A", "data:image/png;base64,é"])
def test_what_cannot_be_decoded_is_refused(url: str) -> None:
    with pytest.raises(BadImage):
        decode(url)


@pytest.mark.parametrize("text", ["", "data", "data:", "data: cats, dogs", "http://x/data:image/png,", "database, x"])
def test_a_text_that_is_no_data_url_is_none(text: str) -> None:
    assert not is_data_url(text)


def test_data_urls_are_found_inside_but_not_where_text_or_the_servers_own_keys_are() -> None:
    url = "data:image/png;base64,AAAA"
    data: dict[str, Json] = {
        "a": [{"b": url}],
        "c": {"d": "x"},
        "prompt": url,
        "imageUrl": url,
        "request": {"id": url},
        "e": url,
    }
    assert data_urls(data).keys() == {"a", "e"}
