import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import hypothesis
import jwt
import openai
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from providers.errors import BadSignature
from providers.signatures import (
    Ed25519Headers,
    key_id_of_jwt,
    same_token,
    signing_keys,
    verify_ed25519,
    verify_hmac,
    verify_jwt,
    verify_standard,
)
from tests.server.calling import SECRET, signed

NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'
PUBLISHED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
WRONG = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of 24 by!").decode()
FAL = Ed25519Headers("x-id", "x-user", "x-time", "x-sig")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HERE = "https://darkroom.example/webhooks/google"


def headers(signature: str = PUBLISHED, **other: str) -> dict[str, str]:
    """The published vector, or with something changed."""
    given = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature,
    }
    given |= {name.replace("_", "-"): value for name, value in other.items()}
    return {name: value for name, value in given.items() if value}


def accepted(given: Mapping[str, str], *secrets: str, body: bytes = BODY, now: float = NOW) -> bool:
    keys = [key for secret in secrets or (SECRET,) for key in signing_keys(secret)]
    try:
        verify_standard(given, body, keys, now)
    except BadSignature:
        return False
    return True


def test_the_published_vector_is_accepted_and_names_its_delivery() -> None:
    proof = verify_standard(headers(), BODY, signing_keys(SECRET), NOW)
    assert (proof.delivery_id, proof.claims) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", None)
    assert not accepted(headers(WRONG))


@pytest.mark.parametrize(
    ("signature", "good"),
    [
        (f"{WRONG} {PUBLISHED}", True),
        (f"v1a,AAAA {PUBLISHED}", True),
        (f"nocomma {PUBLISHED}", True),
        (f"v1,%% {PUBLISHED}", True),
        (f"v1,\u00e9 {PUBLISHED}", True),
        (PUBLISHED.removeprefix("v1,"), False),
        (PUBLISHED.replace("v1,", "v2,"), False),
        (PUBLISHED.replace("v1,", "v1a,"), False),
        ("v1,", False),
        ("v1,\u00e9", False),
        (" ".join([WRONG] * 20 + [PUBLISHED]), False),
    ],
)
def test_one_good_signature_of_a_bounded_list_is_enough(signature: str, *, good: bool) -> None:
    assert accepted(headers(signature)) is good


@pytest.mark.parametrize("missing", ["webhook_id", "webhook_timestamp", "webhook_signature"])
def test_each_header_is_needed(missing: str) -> None:
    assert not accepted(headers(**{missing: ""}))


@pytest.mark.parametrize(
    ("shift", "good"), [(-300, True), (300, True), (-301, False), (301, False), (302, False), (10**9, False)]
)
def test_a_call_counts_for_five_minutes_before_and_after(shift: int, *, good: bool) -> None:
    assert accepted(headers(), now=NOW + shift) is good


@pytest.mark.parametrize("text", [f"{NOW}.0", "soon", f" {NOW}", f"+{NOW}", f"0x{NOW}", "1e9", "\u0661", "9" * 400])
def test_a_time_is_a_plain_number_of_seconds(text: str) -> None:
    key = signing_keys(SECRET)[0]
    signed_text = f"msg_1.{text}.".encode() + BODY
    signature = base64.b64encode(hmac.new(key, signed_text, hashlib.sha256).digest()).decode()
    given = headers(f"v1,{signature}", webhook_id="msg_1", webhook_timestamp=text)
    assert not accepted(given)


def test_an_id_that_holds_a_dot_could_be_read_in_two_ways() -> None:
    key = signing_keys(SECRET)[0]
    signature = base64.b64encode(hmac.new(key, f"a.1.{NOW}.".encode() + BODY, hashlib.sha256).digest()).decode()
    assert not accepted(headers(f"v1,{signature}", webhook_id="a.1"))
    assert not accepted(signed(BODY, "x" * 201, at=NOW))


def test_old_and_new_secret_count_while_one_is_being_changed() -> None:
    for secret in (SECRET, OTHER_SECRET):
        given = signed(BODY, secret=secret, at=NOW)
        assert accepted(given, SECRET, OTHER_SECRET)
    assert not accepted(signed(BODY, secret=OTHER_SECRET, at=NOW), SECRET)


def test_the_names_svix_uses_are_known_too() -> None:
    given = {name.replace("webhook", "svix"): value for name, value in headers().items()}
    assert accepted(given)


@hypothesis.given(st.binary(max_size=200), st.integers(0, 255), st.data())
def test_no_byte_of_the_body_can_be_changed(body: bytes, byte: int, data: st.DataObject) -> None:
    key = signing_keys(SECRET)[0]
    text = f"msg_1.{NOW}.".encode() + body
    given = headers("v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode(), webhook_id="msg_1")
    assert accepted(given, body=body)
    place = data.draw(st.integers(0, len(body)))
    changed = body[:place] + bytes([byte]) + body[place + data.draw(st.integers(0, 1)) :]
    assert accepted(given, body=changed) is (changed == body)


@hypothesis.given(
    st.sampled_from(["msg_1", "msg_2", ""]),
    st.sampled_from([-301, -299, 0, 299, 302]),
    st.sampled_from([SECRET, OTHER_SECRET]),
    st.sampled_from(["", "v1a,AAAA ", "v2,AAAA "]),
    st.sampled_from([b'{"a": 1}', b'{"a":1}', '{"a": "\u00e9"}'.encode()]),
)
def test_two_independent_libraries_agree(delivery_id: str, shift: int, secret: str, before: str, body: bytes) -> None:
    now = int(time.time())
    given = signed(b'{"a": 1}', "msg_1", secret=secret, at=now + shift)
    given["webhook-id"] = delivery_id
    given["webhook-signature"] = before + given["webhook-signature"]
    theirs = _accepted_by_the_standard(given, body), _accepted_by_openai(given, body)
    assert theirs == (accepted(given, body=body, now=now),) * 2


def _accepted_by_the_standard(given: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(SECRET).verify(body, given, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def _accepted_by_openai(given: dict[str, str], body: bytes) -> bool:
    client = openai.OpenAI(api_key="sk-none")
    try:
        client.webhooks.verify_signature(body, given, secret=SECRET)
    except (openai.InvalidWebhookSignatureError, ValueError):
        return False
    finally:
        client.close()
    return True


@pytest.mark.parametrize("secret", ["", "  ", "whsec_", "whsec_%%%"])
def test_a_secret_that_can_sign_nothing_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="must"):
        signing_keys(secret)


def test_a_secret_without_its_prefix_is_taken_as_either_kind_of_library_does() -> None:
    bare = SECRET.removeprefix("whsec_")
    assert accepted(signed(BODY, secret=SECRET, at=NOW), bare)
    raw = base64.b64encode(hmac.new(b"plain text", f"msg_1.{NOW}.".encode() + BODY, hashlib.sha256).digest()).decode()
    assert accepted(headers(f"v1,{raw}", webhook_id="msg_1"), "plain text")


HEX = hmac.new(b"plain text", BODY, hashlib.sha256).hexdigest()
TIMED = hmac.new(b"plain text", f"{NOW}.".encode() + BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("header", "good", "timed"),
    [
        (HEX, True, False),
        (HEX.upper(), True, False),
        (f"sha256={HEX}", True, False),
        (f"t={NOW},v1={TIMED}", True, True),
        (f"t={NOW}, v1={'0' * 64}, v1={TIMED}", True, True),
        (f"t={NOW},v0={TIMED}", False, False),
        (f"t={NOW - 301},v1={TIMED}", False, False),
        (f"t={NOW},t={NOW},v1={TIMED}", False, False),
        (f"t={NOW},v1={HEX}", False, False),
        (f"sha1={HEX}", False, False),
        (f"sha256={HEX[:-1]}", False, False),
        (f"sha256={'0' * 64}", False, False),
        ("sha256=", False, False),
        ("", False, False),
        ("\u00e9" * 64, False, False),
    ],
)
def test_hmac_in_hex(header: str, *, good: bool, timed: bool) -> None:
    assert _accepted_hmac(header) is good
    assert _accepted_hmac(header, timestamped=True) is timed


def test_what_hmac_signs_is_its_id_so_a_repetition_is_known_whatever_its_headers_say() -> None:
    proof = verify_hmac(HEX, BODY, [b"plain text"], NOW)
    assert verify_hmac(f"sha256={HEX}", BODY, [b"plain text"], NOW + 9999) == proof


def _accepted_hmac(header: str, *, timestamped: bool = False) -> bool:
    try:
        verify_hmac(header, BODY, [b"other", b"plain text"], NOW, timestamped=timestamped)
    except BadSignature:
        return False
    return True


def ed25519_headers(key: ed25519.Ed25519PrivateKey, body: bytes = BODY, at: int = NOW, **other: str) -> dict[str, str]:
    """As fal and Ideogram sign."""
    message = "\n".join(("req-1", "user-1", str(at), hashlib.sha256(body).hexdigest()))
    given = {"x-id": "req-1", "x-user": "user-1", "x-time": str(at), "x-sig": key.sign(message.encode()).hex()}
    return given | {name.replace("_", "-"): value for name, value in other.items()}


def test_ed25519_covers_id_user_time_and_body() -> None:
    old, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    keys = [old.public_key(), key.public_key()]
    proof = verify_ed25519(ed25519_headers(key), BODY, FAL, keys, NOW)
    assert proof.delivery_id.startswith("req-1:")
    bad = [
        ed25519_headers(key, x_id="req-2"),
        ed25519_headers(key, x_user="user-2"),
        ed25519_headers(key, x_time=str(NOW + 1)),
        ed25519_headers(key, x_sig="00" * 64),
        ed25519_headers(key, x_sig="zz" * 64),
        ed25519_headers(key, x_sig=""),
        ed25519_headers(key, x_user="user-1\nx"),
        ed25519_headers(ed25519.Ed25519PrivateKey.generate()),
        ed25519_headers(key, b"other body"),
        ed25519_headers(key, at=NOW - 301),
    ]
    for given in bad:
        with pytest.raises(BadSignature):
            verify_ed25519(given, BODY, FAL, keys, NOW)


def token(claims: Mapping[str, Any], key: Any = RSA_KEY, alg: str = "RS256", **header: str) -> str:
    return jwt.encode({**claims}, key, alg, {"kid": "k1", **header})


CLAIMS = {"aud": HERE, "exp": NOW + 60, "iat": NOW, "type": "interaction.completed", "data": {"id": "i-1"}}


def accepted_jwt(text: str, *, now: float = NOW) -> bool:
    try:
        key_id_of_jwt(text)
        verify_jwt(text, [RSA_KEY.public_key()], [HERE], now)
    except BadSignature:
        return False
    return True


def test_a_jwt_is_the_event_itself() -> None:
    proof = verify_jwt(token(CLAIMS), [RSA_KEY.public_key()], [HERE], NOW)
    assert proof.claims == CLAIMS
    assert key_id_of_jwt(token(CLAIMS)) == "k1"


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "https://elsewhere.example"},
        {"aud": None},
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": str(NOW + 60)},
        {"exp": None},
        {"exp": float("nan")},
        {"iat": NOW - 301},
        {"iat": NOW + 301},
        {"iat": True},
        {"nbf": NOW + 400},
    ],
)
def test_a_jwt_for_others_or_for_another_time_is_refused(changed: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
    assert accepted_jwt(token(CLAIMS))
    assert not accepted_jwt(token(claims))


def test_a_jwt_signed_in_another_way_is_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    part = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in ({}, CLAIMS)]
    forged = [
        token(CLAIMS, other),
        token(CLAIMS, "the public key, used as if it were a secret", "HS256"),
        token(CLAIMS, None, "none"),
        token(CLAIMS, kid=""),
        token(CLAIMS, RSA_KEY, "RS512"),
        f"{part[0]}.{part[1]}.",
        f"{token(CLAIMS)}x",
        "a.b",
        "",
        "\u00e9.\u00e9.\u00e9",
        "x" * 9000,
    ]
    assert [text for text in forged if accepted_jwt(text)] == []
    with pytest.raises(BadSignature):
        # Also where nobody has looked at the header before.
        verify_jwt(token(CLAIMS, RSA_KEY, "RS512"), [RSA_KEY.public_key()], [HERE], NOW)


def test_tokens_are_equal_or_not_whatever_they_hold() -> None:
    assert same_token("abc", "abc")
    assert not same_token("abd", "abc")
    assert not same_token("\ud800", "abc")
