from pathlib import Path

import pytest

from server.errors import BadSettings
from server.settings import Settings, is_loopback, normalise_database_url, read_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgres://h/d?sslmode=require&channel_binding=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
    ],
)
def test_addresses_of_databases_are_taken_as_other_programs_write_them(given: str, used: str) -> None:
    assert normalise_database_url(given) == used


@pytest.mark.parametrize("given", ["mysql://h/d", "nonsense", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused_by_name_of_the_variable(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    with pytest.raises(BadSettings, match=r"^DATABASE_URL: "):
        read_settings()


def test_defaults_need_no_service_and_no_key() -> None:
    settings = read_settings()
    assert settings.database == f"sqlite+aiosqlite:///{Path.cwd() / 'data' / 'darkroom.db'}"
    assert settings.redis_url is None
    assert settings.public_url == "http://127.0.0.1:8000"


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.setenv(str(field.alias), "")
    assert read_settings() == Settings()


def test_options_of_the_command_line_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9001")
    assert read_settings(port=9002).port == 9002
    assert read_settings(port=None).port == 9001


def test_without_tokens_only_loopback_is_listened_on() -> None:
    with pytest.raises(BadSettings, match=r"HOST is 192\.168\.1\.5.*127\.0\.0\.1"):
        read_settings(host="192.168.1.5")


@pytest.mark.parametrize(("host", "url"), [("192.168.1.5", "192.168.1.5"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])  # noqa: S104
def test_with_tokens_any_address_is_listened_on(host: str, url: str) -> None:
    settings = read_settings(host=host, secret="s" * 32)
    assert settings.public_url == f"http://{url}:8000"
    assert settings.token_secret == "s" * 32


@pytest.mark.parametrize("secret", ["hunter2", "hunter2".ljust(31, "x"), "\u00fchunter2".ljust(30, "x")])
def test_a_short_secret_is_refused_in_one_line_that_does_not_show_it(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_SECRET", secret)
    with pytest.raises(BadSettings) as refused:
        read_settings()
    assert str(refused.value).startswith("DARKROOM_SECRET: must be at least 32 bytes long")
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80000"),
        ("PORT", "http"),
        ("APP_URL", "darkroom.example"),
        ("DARKROOM_DEMO_DELAY_S", "-1"),
        ("DARKROOM_FETCH_ALLOW", "10.0.0.0/33"),
        ("DARKROOM_CORS_ORIGINS", "app.example"),
        ("DARKROOM_LOG_LEVEL", "loud"),
        ("DARKROOM_LIMITS", "openai=many"),
        ("DARKROOM_MAX_QUEUE", "0"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"^{name}: "):
        read_settings()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "set REDIS_URL to a redis:// address and DATABASE_URL to a postgresql:// address"),
        ({"redis_url": "redis://h"}, "set DATABASE_URL to a postgresql:// address"),
        ({"redis_url": "redis://h", "database_url": "sqlite:///x.db"}, "set DATABASE_URL to a postgresql:// address"),
        ({"database_url": "postgres://h/d"}, "set REDIS_URL to a redis:// address"),
    ],
)
@pytest.mark.parametrize("role", ["web", "worker"])
def test_a_role_of_a_fleet_is_refused_with_what_it_lacks(role: str, given: dict[str, str], wanted: str) -> None:
    with pytest.raises(BadSettings) as refused:
        read_settings(role=role, **given)
    assert str(refused.value) == f"DARKROOM_ROLE is {role}, which works with other processes: {wanted}"
    assert read_settings(role="all", **given).role == "all"


def test_a_role_is_read_as_people_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_ROLE", "Web")
    assert read_settings(redis_url="redis://h", database_url="postgres://h/d").role == "web"
    monkeypatch.setenv("DARKROOM_ROLE", "boss")
    with pytest.raises(BadSettings, match=r"^DARKROOM_ROLE: "):
        read_settings()


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_FETCH_ALLOW", "cdn.local, 10.0.0.0/8,")
    monkeypatch.setenv("DARKROOM_CORS_ORIGINS", "https://App.example/")
    settings = read_settings()
    assert settings.fetch_allow == ("cdn.local", "10.0.0.0/8")
    assert settings.cors_origins == ("https://app.example",)


def test_secrets_do_not_show_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:topsecret@h/d")
    shown = repr(read_settings())
    assert "sk-secret" not in shown
    assert "topsecret" not in shown


def test_each_provider_has_secrets_of_its_own_and_ours_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE_WEBHOOK_SECRET", "whsec_QUJD, plain text,")
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", "whsec_" + "QUJD" * 8)
    settings = read_settings()
    assert list(settings.webhook_secrets) == ["from_outside"]
    assert [each.get_secret_value() for each in settings.webhook_secrets["from_outside"]] == [
        "whsec_QUJD",
        "plain text",
    ]
    assert "plain text" not in repr(settings)
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_%")
    with pytest.raises(BadSettings, match=r"^OPENAI_WEBHOOK_SECRET: what follows whsec_ must be base64$"):
        read_settings()


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.5", True), ("::1", True), ("10.0.0.1", False), ("x", False)])
def test_loopback_is_told_from_the_rest(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_every_setting_is_documented_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    undocumented = [field.alias for field in Settings.model_fields.values() if f"`{field.alias}`" not in readme]
    assert undocumented == []
