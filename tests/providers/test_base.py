import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import (
    MAX_SEED,
    ImageResult,
    PromptSpec,
    offered_size,
    parse_ratio,
    picture_type,
    size_for_ratio,
)
from providers.errors import InvalidSpec
from providers.json import Json
from tests.providers.builders import picture

texts = st.text(max_size=40)
specs = st.builds(
    PromptSpec,
    base_prompt=texts,
    style_modifiers=st.lists(texts, max_size=4).map(tuple),
    size=st.none() | st.tuples(st.integers(1, 16_384), st.integers(1, 16_384)),
    aspect_ratio=st.none() | st.sampled_from(["1:1", "16:9", "2.35:1", "9:16"]),
    quality=st.none() | st.sampled_from(["low", "high"]),
    seed=st.none() | st.integers(0, MAX_SEED),
    negative_prompt=st.none() | st.text(min_size=1, max_size=40),
    previous_image=st.none() | st.just("https://pictures.example/a.png"),
    n=st.integers(1, 16),
)


@given(specs)
def test_a_spec_survives_its_json(spec: PromptSpec) -> None:
    assert PromptSpec.from_json(spec.to_json()) == spec


@given(specs)
def test_a_spec_survives_a_browser_which_makes_every_number_a_float(spec: PromptSpec) -> None:
    floats = {key: float(value) if isinstance(value, int) else value for key, value in spec.to_json().items()}
    assert PromptSpec.from_json(floats) == spec


def test_what_is_left_out_stays_out() -> None:
    assert PromptSpec("a fox").to_json() == {"basePrompt": "a fox"}


def test_null_and_empty_mean_left_out_and_unknown_fields_are_ignored() -> None:
    value: dict[str, Json] = {"basePrompt": "", "size": "auto", "aspectRatio": "", "seed": None, "n": None, "steps": 30}
    assert PromptSpec.from_json(value) == PromptSpec("")


def test_seeds_and_counts_may_come_as_digits() -> None:
    spec = PromptSpec.from_json({"basePrompt": "a", "seed": "9007199254740991", "n": "2", "size": "640 X 480"})
    assert (spec.seed, spec.n, spec.size) == (9_007_199_254_740_991, 2, (640, 480))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("basePrompt", None),
        ("basePrompt", 3),
        ("basePrompt", "x" * 32_001),
        ("styleModifiers", "warm"),
        ("styleModifiers", ["warm", 1]),
        ("styleModifiers", ["x"] * 65),
        ("styleModifiers", ["x" * 1_001]),
        ("size", "big"),
        ("size", "0x10"),
        ("size", "99999x10"),
        ("size", 1024),
        ("aspectRatio", "wide"),
        ("aspectRatio", "0:1"),
        ("aspectRatio", 1.5),
        ("quality", 1),
        ("seed", 1.5),
        ("seed", -1),
        ("seed", 2**53),
        ("seed", float("nan")),
        ("seed", float("inf")),
        ("seed", "12a"),
        ("seed", True),
        ("negativePrompt", ["x"]),
        ("previousImage", "data:image/png;base64,AAAA"),
        ("previousImage", "file:///etc/passwd"),
        ("n", 0),
        ("n", 17),
    ],
)
def test_a_field_that_cannot_be_read_is_named(field: str, value: Json) -> None:
    with pytest.raises(InvalidSpec) as caught:
        PromptSpec.from_json({"basePrompt": "a", field: value})
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.message}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["basePrompt", "styleModifiers", "size", "aspectRatio", "quality", "seed", "n"])


@given(st.dictionaries(fields, json_values))
def test_any_json_is_either_read_or_refused(value: dict[str, Json]) -> None:
    try:
        spec = PromptSpec.from_json(value)
    except InvalidSpec:
        return
    assert PromptSpec.from_json(spec.to_json()) == spec


def test_the_prompt_joins_its_modifiers() -> None:
    assert PromptSpec(" a fox ", ("", "in ink ", "wide")).prompt == "a fox, in ink, wide"


@given(st.floats(0.25, 4), st.sampled_from([1, 8, 16]))
def test_a_size_for_a_ratio_keeps_ratio_and_area(ratio: float, multiple: int) -> None:
    width, height = size_for_ratio(ratio, 1024 * 1024, multiple)
    assert width % multiple == height % multiple == 0
    assert abs(width / height / ratio - 1) < 0.05
    assert abs(width * height / 1024**2 - 1) < 0.1


def test_an_offered_size_is_found_by_its_ratio() -> None:
    sizes = ((1024, 1024), (1280, 720))
    assert offered_size(parse_ratio("16:9"), sizes) == (1280, 720)
    assert offered_size(parse_ratio("3/1"), sizes) is None


def test_a_result_is_bytes_or_a_url() -> None:
    with pytest.raises(ValueError, match="either"):
        ImageResult("image/png")
    with pytest.raises(ValueError, match="either"):
        ImageResult("image/png", data=b"x", url="https://pictures.example/a.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif"])
def test_a_picture_tells_its_type(kind: str) -> None:
    image = picture(kind=kind)
    assert picture_type(image.data) == image.content_type


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"<html>", b"RIFF1234WAVE", b"\x89PN"])
def test_what_is_no_picture_has_no_type(data: bytes) -> None:
    assert picture_type(data) is None
