import inspect
import json
from datetime import UTC, datetime

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import ErrorClass, ErrorKind, ProviderError
from providers.openai_errors import mapper_of, mappers, stream_error, to_provider_error

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
REQUEST = httpx2.Request("POST", "https://api.openai.com/v1/images/generations")
EXPORTED = [
    each for each in list(vars(openai).values()) if inspect.isclass(each) and issubclass(each, Exception)
]  # fmt: skip


def status_error(status: int, error: object = None, **headers: str) -> openai.APIStatusError:
    """The exception the SDK raises for an answer, made by the SDK itself."""
    client = openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:9/v1")
    body = error.encode() if isinstance(error, str) else json.dumps({"error": error}).encode()
    response = httpx2.Response(
        status, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=REQUEST
    )
    made = client._make_status_error_from_response(response)
    client.close()
    return made


def mapped(error: Exception) -> ProviderError:
    return to_provider_error(error, NOW)


@pytest.mark.parametrize("exported", EXPORTED, ids=lambda exported: exported.__name__)
def test_no_exception_the_sdk_exports_is_unmapped(exported: type[Exception]) -> None:
    assert mapper_of(exported) is not None


def test_the_sdk_still_exports_exceptions() -> None:
    assert len(EXPORTED) >= 18


def test_the_rules_go_from_the_most_specific_to_the_least() -> None:
    classes = [known for known, _ in mappers()]
    for index, known in enumerate(classes):
        assert not any(issubclass(known, earlier) for earlier in classes[:index]), known


@pytest.mark.parametrize(
    ("status", "error_class", "kind"),
    [
        (400, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
        (401, ErrorClass.AUTH_ERROR, None),
        (403, ErrorClass.AUTH_ERROR, None),
        (404, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
        (408, ErrorClass.TEMPORARY, None),
        (409, ErrorClass.TEMPORARY, None),
        (413, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
        (418, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
        (422, ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST),
        (429, ErrorClass.RATE_LIMIT, None),
        (500, ErrorClass.TEMPORARY, None),
        (503, ErrorClass.TEMPORARY, None),
        (304, ErrorClass.TEMPORARY, None),
    ],
)
@pytest.mark.parametrize(
    "error", [{"message": "No.", "type": "x", "param": None, "code": None}, "", "<html>", "[1]", "{"]
)
def test_a_status_says_what_to_do_whatever_the_body_is(
    status: int, error_class: ErrorClass, kind: ErrorKind | None, error: object
) -> None:
    failure = mapped(status_error(status, error))
    assert (failure.error_class, failure.kind) == (error_class, kind)
    assert failure.message.endswith(".")
    assert "<html>" not in failure.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("moderation_blocked", ErrorKind.POLICY),
        ("content_policy_violation", ErrorKind.POLICY),
        ("insufficient_quota", ErrorKind.QUOTA),
        ("billing_hard_limit_reached", ErrorKind.QUOTA),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 429])
def test_a_code_knows_better_than_a_status(status: int, code: str, kind: ErrorKind) -> None:
    failure = mapped(status_error(status, {"message": "No.", "code": code, "type": "x"}, retry_after="3"))
    assert (failure.error_class, failure.kind, failure.vendor_code) == (ErrorClass.PERMANENT, kind, code)
    assert failure.retry_after_s is None


def test_the_type_counts_where_the_code_is_missing() -> None:
    failure = mapped(status_error(429, {"message": "No.", "code": None, "type": "insufficient_quota"}))
    assert failure.kind is ErrorKind.QUOTA


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            {"moderation_details": {"moderation_stage": "input", "categories": ["sexual", "self_harm/intent"]}},
            "OpenAI refused this prompt: sexual, self harm, intent. Change it and try again.",
        ),
        (
            {"moderation_details": {"moderation_stage": "output", "categories": ["violence"]}},
            "OpenAI withheld the picture it made: violence. Change the prompt and try again.",
        ),
        (
            {"message": "Rejected. safety_violations=[violence, sexual]."},
            "OpenAI refused this prompt: violence, sexual. Change it and try again.",
        ),
        ({"message": "Rejected."}, "OpenAI refused this prompt. Change it and try again."),
        ({"moderation_details": 3}, "OpenAI refused this prompt. Change it and try again."),
    ],
)
def test_a_refusal_tells_people_why(error: dict[str, object], sentence: str) -> None:
    assert mapped(status_error(400, {"code": "moderation_blocked", **error})).message == sentence


def test_what_was_wrong_is_quoted_but_not_at_length() -> None:
    assert (
        mapped(status_error(400, {"message": "Unknown size."})).message
        == "OpenAI did not accept this request: Unknown size."
    )
    assert len(mapped(status_error(400, {"message": "x" * 9_000})).message) < 300
    assert len(mapped(status_error(400, {"message": "x" * 9_000})).vendor_message or "") == 2_000


def test_only_a_failure_worth_repeating_says_when() -> None:
    assert mapped(status_error(429, {}, retry_after="2.5")).retry_after_s == 2.5
    assert mapped(status_error(503, {}, retry_after_ms="900")).retry_after_s == 0.9
    assert mapped(status_error(500, {}, retry_after="Sat, 21 Nov 2026 12:01:00 GMT")).retry_after_s == 60
    assert mapped(status_error(429, {}, retry_after="abc")).retry_after_s is None
    assert mapped(status_error(400, {}, retry_after="5")).retry_after_s is None


@pytest.mark.parametrize(("status", "ambiguous"), [(500, False), (502, True), (503, False), (504, True), (429, False)])
def test_an_answer_a_gateway_lost_may_have_been_billed(status: int, ambiguous: bool) -> None:  # noqa: FBT001
    assert mapped(status_error(status, {})).billing_ambiguous is ambiguous


def caused(error: openai.APIConnectionError, cause: Exception) -> openai.APIConnectionError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "ambiguous"),
    [
        (caused(openai.APITimeoutError(REQUEST), httpx2.ReadTimeout("")), ErrorKind.TIMEOUT, True),
        (caused(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("")), ErrorKind.TIMEOUT, False),
        (caused(openai.APIConnectionError(request=REQUEST), httpx2.ReadError("")), None, True),
        (caused(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("")), None, False),
        (httpx2.RemoteProtocolError(""), None, True),
        (httpx2.ReadTimeout(""), ErrorKind.TIMEOUT, True),
        (json.JSONDecodeError("", "", 0), None, True),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), None, True),
        (ConnectionResetError(), None, True),
    ],
)
def test_what_broke_on_the_way_is_temporary_and_perhaps_billed(
    error: Exception,
    kind: ErrorKind | None,
    ambiguous: bool,  # noqa: FBT001
) -> None:
    failure = mapped(error)
    assert (failure.error_class, failure.kind, failure.billing_ambiguous) == (ErrorClass.TEMPORARY, kind, ambiguous)


def test_what_no_rule_names_fails_for_good() -> None:
    assert mapped(RuntimeError("odd")).error_class is ErrorClass.PERMANENT
    assert mapped(openai.OpenAIError("odd")).error_class is ErrorClass.PERMANENT
    assert mapped(openai.InvalidWebhookSignatureError("odd")).error_class is ErrorClass.AUTH_ERROR
    assert mapped(openai.ContentFilterFinishReasonError()).kind is ErrorKind.POLICY


@pytest.mark.parametrize(
    ("fields", "error_class"),
    [
        ({"code": "server_error"}, ErrorClass.TEMPORARY),
        ({}, ErrorClass.TEMPORARY),
        ({"code": "rate_limit_exceeded"}, ErrorClass.RATE_LIMIT),
        ({"type": "invalid_request_error", "message": "Bad."}, ErrorClass.PERMANENT),
        ({"type": "image_generation_user_error", "code": "moderation_blocked"}, ErrorClass.PERMANENT),
        ({"code": "invalid_api_key"}, ErrorClass.AUTH_ERROR),
    ],
)
def test_an_error_inside_a_stream_goes_by_its_code(fields: dict[str, object], error_class: ErrorClass) -> None:
    assert stream_error(fields).error_class is error_class
    assert mapped(openai.APIError("Broken.", REQUEST, body=fields)).error_class is error_class


values = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=2)


@given(
    st.integers(300, 599), st.dictionaries(st.sampled_from(["code", "type", "message", "moderation_details"]), values)
)
def test_no_error_body_can_break_the_mapping(status: int, error: dict[str, object]) -> None:
    assert mapped(status_error(status, error)).message
