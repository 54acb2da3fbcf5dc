import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.close_codes import MAX_REASON_BYTES, OF_THE_LIBRARY, Close, reason, word_of

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("crdt", "server") for path in (ROOT / package).rglob("*.py"))
ROW = re.compile(r"^\| (\d{4}) \| `?([\w-]+)`?", re.MULTILINE)


@given(st.sampled_from(Close), st.text(max_size=300))
def test_a_reason_always_fits_a_close_frame_and_begins_with_its_word(close: Close, sentence: str) -> None:
    code, told = close.because(sentence)
    assert code == close.code
    assert len(told.encode()) <= MAX_REASON_BYTES
    assert told.startswith(f"{close.word}: ")
    assert word_of(code, told) == close.word


def test_a_reason_of_characters_of_many_bytes_is_cut_between_two() -> None:
    assert reason("busy", "ü" * 200) == "busy: " + "ü" * 58


def test_what_a_client_wrote_is_no_word() -> None:
    assert word_of(4400, "x" * 100 + ": y") == "other"
    assert word_of(1009, "frame with 9 bytes") == "too-large"


@pytest.mark.parametrize("close", Close)
def test_codes_are_legal_and_say_whether_to_come_back(close: Close) -> None:
    """RFC 6455 7.4: of the lower ones only some may be sent; 44xx stop, whatever else is passing."""
    stops = {Close.BINARY_ONLY}
    assert close.code in {1003, 1012, 1013} or 4400 <= close.code <= 4499
    assert (close.code >= 4400 or close in stops) == (close.code not in {1012, 1013})


def test_every_code_is_in_the_table_of_the_readme_and_none_else() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Websocket close codes")[2].partition("\n## ")[0]
    documented = {(int(code), word) for code, word in ROW.findall(table)}
    assert documented == {(close.code, close.word) for close in Close} | set(OF_THE_LIBRARY.items())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_used_beside_the_table(path: Path) -> None:
    """Sockets are closed with `*Close.X.because(...)`, or with what came from there."""
    used = {close.code for close in Close} | OF_THE_LIBRARY.keys()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and path.name != "close_codes.py":
            assert node.value not in used or not isinstance(node.value, int), f"line {node.lineno}: {node.value}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "close":
            passed_on = (ast.Starred, ast.Name)
            assert all(isinstance(argument, passed_on) for argument in node.args), f"line {node.lineno}"
