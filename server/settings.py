"""Every setting of the server, read from the environment; the defaults run with no service and no key."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.exc import ArgumentError

from jobs.limits import Limits, parse_limits
from jobs.signing import read_keys
from providers.addresses import AllowList
from providers.signatures import signing_keys
from server.crowd import Bounds
from server.errors import BadSettings
from server.limits import Allowance
from server.proxies import Proxies

_DRIVERS: Final = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+asyncpg",
    "postgresql+psycopg2": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_OWN: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound
MIN_SECRET_BYTES: Final = 32
_MIB: Final = 1024 * 1024
_WEBHOOK_SECRET: Final = "_WEBHOOK_SECRET"  # noqa: S105 - the end of a name
_DATABASE_FILE: Final = "darkroom.db"
_LIBPQ_ONLY: Final = frozenset({"channel_binding", "gssencmode", "target_session_attrs", "connect_timeout"})
"""Parameters that hosted Postgres puts into its addresses and that asyncpg does not take there."""


class Settings(BaseSettings):
    """What operators can set; each field's alias is the environment variable."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    database_url: SecretStr | None = Field(
        None, alias="DATABASE_URL", description="Postgres or SQLite address; unset: a SQLite file in DARKROOM_DATA"
    )
    data: Path = Field(Path("data"), alias="DARKROOM_DATA", description="folder of the SQLite file and the pictures")
    redis_url: SecretStr | None = Field(
        None, alias="REDIS_URL", description="jobs and what processes tell each other; unset: all in this process"
    )
    role: Literal["all", "web", "worker"] = Field(
        "all", alias="DARKROOM_ROLE", description="what this process does: all, web or worker"
    )
    app_url: str | None = Field(
        None, alias="APP_URL", description="public address, used in image URLs; unset: http://HOST:PORT"
    )
    host: str = Field(
        "127.0.0.1", alias="HOST", description="address to listen on; without DARKROOM_SECRET only loopback"
    )
    port: int = Field(8000, ge=0, le=65535, alias="PORT", description="port to listen on; 0 picks a free one")
    secret: SecretStr | None = Field(
        None, alias="DARKROOM_SECRET", description="signs access tokens; unset: everyone is an editor"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), alias="DARKROOM_CORS_ORIGINS", description="other sites whose pages may use the API, comma separated"
    )
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY", description="offers the OpenAI models")
    openai_base_url: str | None = Field(
        None, alias="OPENAI_BASE_URL", description="a gateway or emulator in place of api.openai.com"
    )
    default_provider: str | None = Field(
        None, alias="DEFAULT_PROVIDER", description="provider of a request that names none; unset: first configured"
    )
    default_model: str | None = Field(
        None, alias="DEFAULT_MODEL", description="model of a request that names none; unset: the provider's first"
    )
    fallbacks: Annotated[Mapping[str, tuple[str, str | None]], NoDecode] = Field(
        default_factory=dict,
        alias="DARKROOM_FALLBACKS",
        description="who is asked when a provider cannot, as in openai=demo or openai=demo:darkroom-1, comma separated",
    )
    demo_delay_s: float = Field(
        2.0, ge=0, le=600, alias="DARKROOM_DEMO_DELAY_S", description="seconds the demo provider takes for a picture"
    )
    run_limits: str = Field(
        "",
        alias="DARKROOM_LIMITS",
        description="calls that makers take in a time and at once, such as openai=tier2,ideogram=20; over the defaults",
    )
    max_queue: int = Field(
        10_000, ge=1, le=1_000_000, alias="DARKROOM_MAX_QUEUE", description="runs that may wait for their turn"
    )
    max_queue_per_person: int = Field(
        2_000, ge=1, le=1_000_000, alias="DARKROOM_MAX_QUEUE_PER_PERSON", description="of them, runs of one person"
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        alias="DARKROOM_FETCH_ALLOW",
        description="hosts or CIDRs that downloads may reach besides public addresses, comma separated",
    )
    outgoing_secret: SecretStr | None = Field(
        None,
        alias="DARKROOM_WEBHOOK_SECRET",
        description="signs calls to webhookUrl: whsec_..., several while one replaces another; unset: made once",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        alias="DARKROOM_TRUSTED_PROXIES",
        description="addresses or CIDRs of proxies whose X-Forwarded-For counts, comma separated",
    )
    max_connections: int = Field(
        20_000, ge=1, alias="DARKROOM_MAX_CONNECTIONS", description="websockets open at once in this process"
    )
    max_room_connections: int = Field(
        1_000, ge=1, alias="DARKROOM_MAX_ROOM_CONNECTIONS", description="websockets open at once in one canvas"
    )
    max_rooms: int = Field(5_000, ge=1, alias="DARKROOM_MAX_ROOMS", description="canvases open at once in this process")
    max_message_bytes: int = Field(
        16 * _MIB, ge=64 * 1024, le=256 * _MIB, alias="DARKROOM_MAX_MESSAGE_BYTES", description="largest message"
    )
    max_document_bytes: int = Field(
        64 * _MIB, ge=64 * 1024, alias="DARKROOM_MAX_DOCUMENT_BYTES", description="largest document of one canvas"
    )
    messages_per_s: float = Field(
        300, ge=0, alias="DARKROOM_MESSAGES_PER_S", description="messages of one connection; 0 without limit"
    )
    bytes_per_s: float = Field(
        4 * _MIB, ge=0, alias="DARKROOM_BYTES_PER_S", description="bytes of one connection; 0 without limit"
    )
    user_messages_per_s: float = Field(
        1_200, ge=0, alias="DARKROOM_USER_MESSAGES_PER_S", description="messages of one person; 0 without limit"
    )
    user_bytes_per_s: float = Field(
        16 * _MIB, ge=0, alias="DARKROOM_USER_BYTES_PER_S", description="bytes of one person; 0 without limit"
    )
    drain_s: float = Field(
        2.0,
        ge=0,
        le=60,
        alias="DARKROOM_DRAIN_S",
        description="seconds over which a stop spreads the closing of clients",
    )
    stop_s: float = Field(
        10.0, ge=0.1, le=60, alias="DARKROOM_STOP_S", description="seconds a stop waits for edits to be stored"
    )
    webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        alias="WEBHOOK_SECRET",
        description="whsec_... that makers sign their calls with; comma separated while it is being changed",
    )
    webhook_secrets: Annotated[dict[str, tuple[SecretStr, ...]], NoDecode] = Field(
        default_factory=dict,
        alias="<PROVIDER>_WEBHOOK_SECRET",
        description="the same for one provider, such as OPENAI_WEBHOOK_SECRET, in place of WEBHOOK_SECRET",
    )
    webhook_grace_s: float = Field(
        120,
        ge=0,
        le=3600,
        alias="DARKROOM_WEBHOOK_GRACE_S",
        description="seconds after which a provider that promised to call is asked itself",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="DARKROOM_LOG_LEVEL", description="debug, info, warning or error"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", alias="DARKROOM_LOG_FORMAT", description="json, text, or auto: text on a terminal, else json"
    )

    @field_validator("cors_origins", "fetch_allow", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("fallbacks", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return parse_fallbacks(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _providers_own(cls, given: dict[str, Any]) -> dict[str, Any]:
        # A provider may be added from outside, so no list of fields holds them all.
        found: dict[str, Any] = {}
        for name, value in os.environ.items():
            provider = name.removesuffix(_WEBHOOK_SECRET)
            # Ours is no provider: DARKROOM_WEBHOOK_SECRET signs what goes out.
            if provider in {"", name, "DARKROOM"} or not value:
                continue
            try:
                found[provider.lower()] = _split_secrets(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return {"webhook_secrets": found, **given}

    @field_validator("webhook_secret", mode="before")
    @classmethod
    def _secrets(cls, value: object) -> object:
        return _split_secrets(value)

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _named_secrets(cls, value: object) -> object:
        return {name: _split_secrets(each) for name, each in value.items()} if isinstance(value, dict) else value

    @field_validator("log_level", "log_format", "role", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(origin) for origin in value)

    @field_validator("fetch_allow")
    @classmethod
    def _allow_list(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.parse(value)
        return value

    @field_validator("run_limits")
    @classmethod
    def _run_limits(cls, value: str) -> str:
        parse_limits(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Proxies(value)
        return value

    @field_validator("app_url", "openai_base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an address such as https://darkroom.example")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(normalise_database_url(value.get_secret_value()))

    @field_validator("secret")
    @classmethod
    def _long_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes long; make one with: openssl rand -hex 32")
        return value

    @field_validator("outgoing_secret")
    @classmethod
    def _webhook_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _closed_doors(self) -> Self:
        if self.secret is None and not is_loopback(self.host):
            raise ValueError(
                f"HOST is {self.host}, but without access tokens everyone who reaches it is an editor: "
                "set DARKROOM_SECRET, or use a loopback address (127.0.0.1)"
            )
        return self

    @model_validator(mode="after")
    def _fleet(self) -> Self:
        missing = {}
        if self.redis_url is None:
            missing["REDIS_URL"] = "a redis:// address"
        if sa.make_url(self.database).get_backend_name() == "sqlite":
            missing["DATABASE_URL"] = "a postgresql:// address"
        if self.role != "all" and missing:
            wanted = " and ".join(f"{name} to {what}" for name, what in missing.items())
            raise ValueError(f"DARKROOM_ROLE is {self.role}, which works with other processes: set {wanted}")
        return self

    @property
    def limits(self) -> Limits:
        """What makers take."""
        return parse_limits(self.run_limits)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        url = sa.URL.create("sqlite+aiosqlite", database=str(self.data.absolute() / _DATABASE_FILE))
        return url.render_as_string(hide_password=False)

    @property
    def token_secret(self) -> str | None:
        """What signs access tokens; None where everyone is an editor."""
        return None if self.secret is None else self.secret.get_secret_value()

    @property
    def bounds(self) -> Bounds:
        """What websockets may use."""
        largest = self.max_message_bytes
        return Bounds(
            self.max_connections,
            self.max_room_connections,
            Allowance.of(self.messages_per_s, self.bytes_per_s, largest),
            Allowance.of(self.user_messages_per_s, self.user_bytes_per_s, largest),
        )

    @property
    def public_url(self) -> str:
        """The address people reach this server at, without a slash at its end."""
        if self.app_url is not None:
            return self.app_url
        # "Every address of this machine" is none that anybody can open.
        known = _OWN.get(self.host, self.host)
        host = f"[{known}]" if ":" in known else known
        return f"http://{host}:{self.port}"


def read_settings(**options: Any) -> Settings:
    """Settings of the environment, overridden by `options` that are not None.

    Raises:
        BadSettings: One line that names the variable.

    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = ".".join(str(part) for part in problem["loc"][:1])
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        raise BadSettings("; ".join(lines)) from None


def normalise_database_url(text: str) -> str:
    """The address with the driver this project uses, as other programs do not write it.

    Raises:
        ValueError: Not the address of a Postgres or SQLite database.

    """
    try:
        url = sa.make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError("must be an address such as postgresql://user:password@host/name") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ValueError(f"{url.drivername!r} is not supported: use a postgresql:// or sqlite:// address")
    if driver == "sqlite+aiosqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("name a file: a database in memory would not outlive a connection")
    query = dict(url.query)
    if driver == "postgresql+asyncpg":
        query = {name: value for name, value in query.items() if name not in _LIBPQ_ONLY}
        if "sslmode" in query:
            query.setdefault("ssl", query.pop("sslmode"))
            query.pop("sslmode", None)
    return url.set(drivername=driver, query=query).render_as_string(hide_password=False)


def parse_fallbacks(text: str) -> dict[str, tuple[str, str | None]]:
    """Who follows whom, from "openai=demo, other=demo:darkroom-1".

    Raises:
        ValueError: Says what is wrong with which part.

    """
    found: dict[str, tuple[str, str | None]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, maker = map(str.strip, part.partition("="))
        provider, _, model = map(str.strip, maker.partition(":"))
        if not name or not provider:
            raise ValueError(f"{part!r} must be PROVIDER=PROVIDER or PROVIDER=PROVIDER:MODEL, as in openai=demo")
        if name in found:
            raise ValueError(f"{name} is followed by two; to ask a third let the second be followed by it")
        if name == provider:
            raise ValueError(f"{name} cannot stand in for itself")
        found[name] = (provider, model or None)
    return found


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server that listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _split_secrets(value: object) -> object:
    """Secrets out of a comma separated text; each can be used."""
    if not isinstance(value, str):
        return value
    secrets = [part.strip() for part in value.split(",") if part.strip()]
    for secret in secrets:
        signing_keys(secret)
    return tuple(secrets)


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"{text!r} is not an origin such as https://app.example")
    return f"{parts.scheme}://{parts.netloc}".lower()
