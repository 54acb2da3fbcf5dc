import io
import json
import logging
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from server.logs import request_id, set_up_logging
from tests.server.tokens import token


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def written(style: str, root: logging.Logger) -> io.StringIO:
    out = io.StringIO()
    set_up_logging("info", "json" if style == "json" else "text", out)
    assert len(root.handlers) == 1
    return out


def test_a_fact_is_one_json_line_with_its_action(root: logging.Logger) -> None:
    out = written("json", root)
    logging.getLogger("x").info("run %s", "done", extra={"action": "run_done", "run_id": "r1"})
    line = json.loads(out.getvalue())
    assert line["message"] == "run done"
    assert (line["action"], line["run_id"], line["level"]) == ("run_done", "r1", "info")
    assert line["ts"].endswith("+00:00")


def test_people_get_a_readable_line(root: logging.Logger) -> None:
    out = written("text", root)
    logging.getLogger("x").warning("slow", extra={"action": "slow_reader"})
    assert "warning slow  action=slow_reader" in out.getvalue()


def test_lines_of_a_request_carry_its_id(root: logging.Logger) -> None:
    out = written("json", root)
    token = request_id.set("abc")
    logging.getLogger("x").info("inside")
    request_id.reset(token)
    logging.getLogger("x").info("outside")
    inside, outside = (json.loads(line) for line in out.getvalue().splitlines())
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_a_database_error_is_logged_without_its_parameters(root: logging.Logger) -> None:
    out = written("json", root)
    prompt = "secret prompt"
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT :prompt FROM missing"), {"prompt": prompt})
    except sa.exc.OperationalError:
        logging.getLogger("x").exception("failed")
    engine.dispose()
    assert "no such table" in out.getvalue()
    assert prompt not in out.getvalue()


def test_libraries_are_heard_from_warnings_on(root: logging.Logger) -> None:
    out = written("json", root)
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("docket").info("chatter")
    assert out.getvalue() == ""


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize(
    "quoted",
    [
        "GET /ws/w1?token={} HTTP/1.1",
        "GET /api/workflows?limit=1&token={}&x=1",
        "< Authorization: Bearer {}",
        "< Sec-WebSocket-Protocol: darkroom, darkroom.token.{}",
    ],
)
@pytest.mark.parametrize("said", [token(), "half-a-token.of-something"])
def test_no_line_holds_a_token(root: logging.Logger, style: str, quoted: str, said: str) -> None:
    out = written(style, root)
    line = quoted.format(said)
    logging.getLogger("x").info("%s", line, extra={"action": "quoted", "header": line})
    logging.getLogger("x").error("failed", exc_info=ValueError(line))
    assert said not in out.getvalue()
    assert out.getvalue().count("[token]") >= 3
