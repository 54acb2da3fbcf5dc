"""Access tokens as other programs would sign them, good and bad ones."""

import time
from typing import Any

import jwt

SECRET = "a secret of the tests, long enough for every algorithm that there is"
OTHER_SECRET = "some other secret, as long as that one, and as good"


def token(
    role: Any = "editor", workflows: Any = "*", *, secret: str = SECRET, alg: str = "HS256", **claims: Any
) -> str:
    """A token; claims given as None are left out."""
    said = {"sub": "u1", "role": role, "workflows": workflows, "exp": time.time() + 600, **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, secret, algorithm=alg)


def bearer(said: str) -> dict[str, str]:
    return {"authorization": f"Bearer {said}"}
