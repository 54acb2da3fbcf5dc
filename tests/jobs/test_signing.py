import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks import Webhook

from jobs import signing
from jobs.signing import read_keys, stored_secret

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_call_is_signed_as_the_specification_has_it() -> None:
    body = b'{"test": 2432232314}'
    signed = signing.headers(read_keys(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (signed["webhook-id"], signed["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


def test_a_secret_that_was_made_is_one_that_others_take() -> None:
    made = signing.make_secret()
    assert len(read_keys(made)[0]) == 32
    assert Webhook(made).sign is not None
    assert signing.make_secret() != made


@pytest.mark.parametrize("text", ["", " , ", "hunter2", "whsec_", "whsec_???", "whsec_c2hvcnQ=", "whsec_" + "A" * 88])
def test_what_is_no_secret_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|secret") as refused:
        read_keys(text)
    assert "hunter2" not in str(refused.value)


async def test_the_secret_of_an_installation_is_made_once(engine: AsyncEngine) -> None:
    first = await stored_secret(engine)
    assert await stored_secret(engine) == first
    assert json.dumps(first).startswith('"whsec_')
