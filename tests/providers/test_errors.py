import pickle

import pytest

from providers.errors import (
    ErrorClass,
    ErrorKind,
    ImageMakingError,
    InvalidSpec,
    ProviderError,
    RequestRefused,
    UnknownModel,
    UnknownProvider,
)


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("No.", ErrorClass.RATE_LIMIT, ErrorKind.QUOTA, vendor_code="x", retry_after_s=1.5),
        InvalidSpec("n", "is too large"),
        RequestRefused("size", "Too large."),
        UnknownProvider("x", ("demo",)),
        UnknownModel("OpenAI", "dall-e-3", ("gpt-image-2",), "gpt-image-2"),
    ],
)
def test_an_error_survives_the_way_between_processes(error: ImageMakingError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_only_temporary_failures_and_rate_limits_are_worth_another_try() -> None:
    retryable = {each for each in ErrorClass if ProviderError("No.", each).retryable}
    assert retryable == {ErrorClass.TEMPORARY, ErrorClass.RATE_LIMIT}


def test_an_unknown_model_names_what_is_offered_or_its_successor() -> None:
    assert str(UnknownModel("OpenAI", "x", ("a", "b"))) == "'x' is not offered by OpenAI. Offered: a, b."
    assert str(UnknownModel("OpenAI", "x", ("a",), "a")) == "'x' is no longer offered by OpenAI. Use 'a'."
