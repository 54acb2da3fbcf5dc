"""Which sites' pages may change something here, and open a websocket. Pure."""

from collections.abc import Collection
from urllib.parse import urlsplit

from server.settings import is_loopback


class Origins:
    """The rule about other sites' pages: without tokens, whoever reaches the server is an editor.

    With tokens a page of any name this server is reached by is its own: a page of another site that takes such a name
    has no token, since browsers keep tokens by the page's name.

    Args:
        public_url: The server's own public address.
        allowed: Further origins, such as "https://app.example".
        tokens: Whether every request needs an access token.

    """

    def __init__(self, public_url: str, allowed: Collection[str] = (), *, tokens: bool = False) -> None:
        parts = urlsplit(public_url)
        self._own = f"{parts.scheme}://{parts.netloc}".lower()
        self._allowed = frozenset(allowed)
        self._tokens = tokens

    def trusts(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may ask for a change.

        Args:
            origin: The Origin header; "" of a client that is no browser.
            host: The Host header. Alone it proves nothing: a name of another site may resolve to this machine.

        """
        origin = origin.lower()
        if not origin or origin == self._own or origin in self._allowed:
            return True
        parts = urlsplit(origin)
        return parts.netloc == host.lower() and (self._tokens or is_loopback(parts.hostname or ""))
