"""Whose an open websocket is, from the first token to the last: expiry, new tokens in band, tokens called back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crdt import protocol
from crdt.close_codes import Close
from crdt.peer import Peer
from server.access import Access, Caller, Role
from server.crowd import Visit
from server.errors import Forbidden, Unauthenticated

LOOK_AGAIN_S: Final = 3.0
_CLOSES: Final = {
    "missing": Close.TOKEN_MISSING,
    "invalid": Close.TOKEN_INVALID,
    "expired": Close.TOKEN_EXPIRED,
    "revoked": Close.TOKEN_REVOKED,
}


def refusal_of(error: Unauthenticated | Forbidden) -> tuple[int, str]:
    """Code and reason of a websocket that is closed for its token."""
    if isinstance(error, Unauthenticated):
        return _CLOSES[error.why].because(str(error))
    return Close.FORBIDDEN.because(str(error))


def person_of(caller: Caller, address: str) -> str:
    """Who shares limits: everything of one `sub`; without one, and for guests of a link, everything of one address."""
    if caller.id and not caller.is_guest:
        return f"sub {caller.id}"
    return f"{caller.id} {address}" if address else ""


@dataclass(frozen=True, slots=True)
class Guest:
    """Who opens a websocket, before they are in the room.

    Attributes:
        caller: What their token says.
        visit: They in the crowd.
        address: Where they come from, see `server.proxies`.

    """

    caller: Caller
    visit: Visit
    address: str


class Session:
    """One websocket and the token it has now.

    Args:
        access: Reads tokens.
        guest: Who opened it.
        room: What they opened.
        peer: They in the room.
        refused: Called with the code when the websocket is closed for its token.

    """

    def __init__(self, access: Access, guest: Guest, room: str, peer: Peer, refused: Callable[[int], None]) -> None:
        self._access = access
        self._caller = guest.caller
        self._room = room
        self._peer = peer
        self._guest = guest
        self._refused = refused
        self._timer: asyncio.TimerHandle | None = None
        peer.offered = self.offer
        access.revocations.watchers.add(self.check)
        self.check()

    def end(self) -> None:
        """The websocket is gone."""
        self._access.revocations.watchers.discard(self.check)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def offer(self, token: str) -> None:
        """Take a new token: a good one replaces the old one with all it allows, a bad one changes nothing."""
        try:
            if self._access.open:
                caller = self._caller
            else:
                caller = self._access.read(token)
                caller.require_workflow(self._room)
        except Unauthenticated as error:
            self._tell(protocol.denied_message(f"token-{error.why}: {error}"))
            return
        except Forbidden as error:
            self._tell(protocol.denied_message(f"token-forbidden: {error}"))
            return
        self._caller = caller
        self._peer.read_only = not caller.may(Role.EDITOR)
        self._peer.person = caller.person()
        self._guest.visit.belongs_to(person_of(caller, self._guest.address))
        self._tell(protocol.token_taken_message(caller.role.value))
        if self._peer.receipt is not None:
            self._tell(protocol.permission_message(may_edit=not self._peer.read_only))
        self.check()

    def check(self) -> None:
        """Close the websocket if its token has ended, and look again when it may have."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left_s = self._caller.seconds_left()
        if self._access.revoked(self._caller):
            self._stop(Close.TOKEN_REVOKED.because("the access token was called back"))
        elif left_s is not None and left_s <= 0:
            self._stop(Close.TOKEN_EXPIRED.because("the access token has expired, ask for a new one"))
        elif left_s is not None:
            # Looked at again now and then: a machine that sleeps, or a clock that is set, moves the end.
            self._timer = asyncio.get_running_loop().call_later(min(left_s, LOOK_AGAIN_S), self.check)

    def _stop(self, close: tuple[int, str]) -> None:
        self._access.revocations.watchers.discard(self.check)
        self._peer.read_only = True
        self._peer.offered = None
        self._refused(close[0])
        self._peer.socket.close(*close)

    def _tell(self, message: bytes) -> None:
        if self._peer.behind is None:
            self._peer.socket.write(protocol.binary_frame(message))
