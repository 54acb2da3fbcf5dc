"""Every code a websocket is closed with, in one table: what it means and whether to come back.

Codes 44xx say stop: the same client would be refused again. All others are passing: come back, after a moment. A reason
is a word and a sentence, "busy: too many people are here", and the word tells apart what shares a code. README.md
repeats the table for people who write clients, and a test compares the two.
"""

from enum import Enum

MAX_REASON_BYTES = 123
"""What a close frame takes beside its code (RFC 6455 5.5)."""


class Close(Enum):
    """A way to close a websocket: code and word."""

    BINARY_ONLY = (1003, "binary-only")
    RESTART = (1012, "restart")
    TRY_AGAIN = (1013, "try-again")
    NOT_STORED = (1013, "not-stored")
    TOO_SLOW = (1013, "too-slow")
    RATE_LIMITED = (1013, "rate-limited")
    BUSY = (1013, "busy")
    BAD_MESSAGE = (4400, "bad-message")
    TOKEN_MISSING = (4401, "missing")
    TOKEN_INVALID = (4401, "invalid")
    TOKEN_EXPIRED = (4401, "expired")
    TOKEN_REVOKED = (4401, "revoked")
    FORBIDDEN = (4403, "forbidden")
    BAD_ROOM = (4404, "bad-room")
    NOT_FOUND = (4404, "not-found")
    DOCUMENT_FULL = (4413, "document-full")

    def __init__(self, code: int, word: str) -> None:
        self.code = code
        self.word = word

    def because(self, sentence: str) -> tuple[int, str]:
        """Code and reason, as `Socket.close` takes them; a sentence that is too long is cut."""
        return self.code, reason(self.word, sentence)


OF_THE_LIBRARY = {1002: "protocol", 1007: "not-utf-8", 1009: "too-large", 1011: "no-pong"}
"""Codes that the websocket library sends by itself, with a text of its own; the words are for logs and metrics."""


def reason(word: str, sentence: str) -> str:
    """A reason as a close frame takes it: whole characters, no control characters, at most `MAX_REASON_BYTES`."""
    plain = "".join(char if char.isprintable() else "?" for char in f"{word}: {sentence}")
    return plain.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def word_of(code: int, text: str) -> str:
    """The word of a reason, if the table has it; for logs and metrics, which must not grow with what it quotes."""
    word = text.partition(":")[0]
    known = {close.word for close in Close if close.code == code}
    return word if word in known else OF_THE_LIBRARY.get(code, "other")
