"""
What can go wrong between us and an outside image maker.

ImageMakingError
 ├── InvalidSpec       a promptSpec that no maker could read
 ├── RequestRefused    a well-formed request that this maker does not offer; nothing was sent
 ├── UnknownProvider   a maker that is not configured
 ├── UnknownModel      a model that its maker does not offer (any more)
 ├── AddressRefused    an address of somebody else's that may not, or cannot, be asked
 ├── ProviderError     the maker, or the way to it, failed; says whether trying again can help
 ├── BadSignature      a call that claims to come from a maker and does not prove it
 └── KeysAway          the public keys of a maker cannot be read now
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class ErrorClass(StrEnum):
    """What a failure means for the run: whether, and how, to try again."""

    TEMPORARY = "TEMPORARY"
    RATE_LIMIT = "RATE_LIMIT"
    AUTH_ERROR = "AUTH_ERROR"
    PERMANENT = "PERMANENT"


class ErrorKind(StrEnum):
    """What a failure means for people: the reason behind its class."""

    POLICY = "POLICY"
    BAD_REQUEST = "BAD_REQUEST"
    QUOTA = "QUOTA"
    EXPIRED = "EXPIRED"
    TIMEOUT = "TIMEOUT"


RETRYABLE = frozenset({ErrorClass.TEMPORARY, ErrorClass.RATE_LIMIT})


class ImageMakingError(Exception):
    """Anything this package raises on purpose."""


@dataclass(eq=False)
class ProviderError(ImageMakingError):
    """
    The image maker refused, failed or could not be reached.

    Attributes:
        message: One plain sentence for people.
        vendor_code: The maker's own code, for operators.
        vendor_message: The maker's own words, for operators; may quote the prompt, so it is never logged.
        retry_after_s: Seconds the maker asked to wait, already capped.
        billing_ambiguous: The maker may have made, and billed, a picture that never reached us.
        ended: The maker has ended its job: asking for it by its id cannot help any more, only asking anew.
    """

    message: str
    error_class: ErrorClass
    kind: ErrorKind | None = None
    vendor_code: str | None = None
    vendor_message: str | None = None
    retry_after_s: float | None = None
    billing_ambiguous: bool = False
    ended: bool = False

    def __post_init__(self) -> None:
        # `args` is what pickle hands back to the constructor; the other fields travel in `__dict__`.
        super().__init__(self.message, self.error_class)

    def __str__(self) -> str:
        return self.message

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.error_class in RETRYABLE


class InvalidSpec(ImageMakingError):
    """A promptSpec field that cannot be read; `field` is its camelCase name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class RequestRefused(ImageMakingError):
    """A request this maker does not offer; `field` is the camelCase name, "model" or "previousImage" included."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return self.message


class UnknownProvider(ImageMakingError):
    """A maker that is not configured here; lists those that are."""

    def __init__(self, name: str, configured: Sequence[str]) -> None:
        super().__init__(name, configured)
        self.name = name
        self.configured = tuple(configured)

    def __str__(self) -> str:
        offered = ", ".join(self.configured) or "none"
        return f"No provider named {self.name!r} is configured. Configured: {offered}."


class UnknownModel(ImageMakingError):
    """A model no configured maker offers; names the successor of a retired one."""

    def __init__(self, provider: str | None, model: str, offered: Sequence[str], successor: str | None = None) -> None:
        super().__init__(provider, model, offered, successor)
        self.provider = provider
        self.model = model
        self.offered = tuple(offered)
        self.successor = successor

    def __str__(self) -> str:
        maker = self.provider or "any configured provider"
        if self.successor is not None:
            return f"{self.model!r} is no longer offered by {maker}. Use {self.successor!r}."
        return f"{self.model!r} is not offered by {maker}. Offered: {', '.join(self.offered) or 'none'}."


class BadSignature(ImageMakingError):
    """A call that claims to come from a maker and does not prove it. Why is nobody's business but ours."""

    def __str__(self) -> str:
        return "the signature is missing or not valid"


class KeysAway(ImageMakingError):
    """The public keys of a maker cannot be read now; `url` is where they should be."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"the keys at {self.url} cannot be read now"


class AddressRefused(ImageMakingError):
    """An address that somebody else chose and that is not asked; `message` goes on after "The address"."""

    def __init__(self, why: Literal["invalid", "unknown", "private"], message: str) -> None:
        super().__init__(why, message)
        self.why = why
        self.message = message

    def __str__(self) -> str:
        return f"The address {self.message}."
