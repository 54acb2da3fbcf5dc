import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pycrdt import Doc, Map

from crdt import canvas
from crdt.database import create_engine
from crdt.store import SqlStore, unpack
from crdt.tables import document_updates, documents
from server.diagnosis import MANY_CLIENTS, Level, RoomFacts, SiteFacts, diagnose, render
from server.doctor import examine
from server.errors import StartupError
from server.migrate import migrate
from server.settings import Settings, read_settings
from tests.server.test_main import command
from tests.support.redis import RedisServer

SOUND = SiteFacts(schema="1", newest_schema="1", rooms=1, serving=1, disk_free_bytes=10**11)
ROOM = RoomFacts(
    room="w1",
    seq=10,
    snapshot_seq=4,
    snapshot_bytes=1000,
    log_rows=6,
    log_bytes=600,
    log_age_s=5.0,
    mirror_seq=10,
    keeper="p" * 32,
    keeper_lives=True,
    document_bytes=1500,
    structs=40,
    clients=3,
    nodes=2,
)
SECRET = "s" * 32


def found(site: SiteFacts = SOUND, *rooms: RoomFacts, **settings: Any) -> list[tuple[str, str]]:
    report = diagnose(read_settings(**settings), site, rooms)
    assert report.sound is all(finding.level is Level.WARNING for finding in report.findings)
    text = render(report)
    assert all(finding.text in text for finding in report.findings)
    json.dumps(report.to_json())
    return [(finding.level.value, finding.about) for finding in report.findings]


def test_of_what_is_sound_nothing_is_found() -> None:
    assert found(SOUND, ROOM) == []
    assert "all is well" in render(diagnose(read_settings(), SOUND, (ROOM,)))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"broken": "BadUpdate"}, ("error", "document")),
        ({"set_aside": 2}, ("warning", "quarantine")),
        ({"log_rows": 5}, ("error", "log")),
        ({"log_rows": 0}, ("error", "log")),
        ({"keeper_lives": False}, ("warning", "keeper")),
        ({"seq": 3000, "log_rows": 2996, "mirror_seq": 3000}, ("warning", "snapshot")),
        ({"keeper": None, "keeper_lives": False, "log_age_s": 8000.0}, ("warning", "snapshot")),
        ({"keeper": None, "keeper_lives": False, "mirror_seq": 2}, ("warning", "mirror")),
        ({"clients": MANY_CLIENTS + 1}, ("warning", "clients")),
        ({"document_bytes": 60 * 1024**2}, ("warning", "size")),
        ({"document_bytes": 65 * 1024**2}, ("error", "size")),
    ],
)
def test_what_is_wrong_with_a_canvas(changes: dict[str, Any], finding: tuple[str, str]) -> None:
    assert found(SOUND, replace(ROOM, **changes)) == [finding]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"database_error": "connection refused"}, ("error", "database")),
        ({"schema": "0"}, ("error", "schema")),
        ({"schema": None}, ("error", "schema")),
        ({"disk_free_bytes": 5 * 10**8}, ("warning", "disk")),
        ({"disk_free_bytes": 5 * 10**7}, ("error", "disk")),
        ({"disk_free_bytes": None}, ("error", "disk")),
        ({"images_error": "Permission denied"}, ("error", "images")),
        ({"stuck_runs": ("run_1",)}, ("error", "runs")),
        ({"redis_error": "ConnectionError"}, ("error", "redis")),
        ({"redis_policy": "allkeys-lru"}, ("warning", "redis")),
    ],
)
def test_what_is_wrong_with_a_site(changes: dict[str, Any], finding: tuple[str, str]) -> None:
    assert found(replace(SOUND, **changes)) == [finding]


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"secret": SECRET, "app_url": "http://darkroom.example"}, 1),
        ({"secret": SECRET, "app_url": "http://127.0.0.1:8000"}, 0),
        ({"secret": SECRET, "host": "192.168.1.5"}, 1),
        ({"app_url": "https://darkroom.example"}, 1),
        ({"app_url": "https://darkroom.example", "trusted_proxies": ("10.0.0.1",)}, 0),
        ({"user_messages_per_s": 100}, 1),
        ({"messages_per_s": 0}, 1),
        ({"user_bytes_per_s": 100}, 1),
        ({"max_document_bytes": 1024**2}, 1),
        ({"redis_url": "redis://h"}, 1),
    ],
)
def test_settings_that_look_wrong_are_told(settings: dict[str, Any], count: int) -> None:
    assert found(SOUND, **settings) == [("warning", "settings")] * count


FLEET = {"redis_url": "redis://h", "database_url": "postgresql://h/d"}


@pytest.mark.parametrize(
    ("settings", "workers", "findings"),
    [
        ({"role": "web"}, 1, []),
        ({"role": "web"}, 0, [("error", "workers")]),
        ({"role": "worker"}, 1, [("warning", "settings")]),
        ({"role": "worker", "app_url": "http://127.0.0.1:8000"}, 1, []),
    ],
)
def test_what_is_wrong_with_a_fleet(settings: dict[str, Any], workers: int, findings: list[tuple[str, str]]) -> None:
    assert found(replace(SOUND, workers=workers), **FLEET, **settings) == findings


async def test_redis_is_asked_and_its_absence_is_told(tmp_path: Path, sqlite_url: str, own_redis: RedisServer) -> None:
    (tmp_path / "images").mkdir()
    settings = read_settings(data=tmp_path, database_url=sqlite_url, redis_url=own_redis.url)
    there = await examine(settings, tmp_path / "images", None)
    assert (there.site.redis_error, there.site.redis_policy) == (None, "noeviction")
    own_redis.kill()
    gone = await examine(settings, tmp_path / "images", None)
    assert gone.site.redis_error == "ConnectionError"
    assert "redis" in [finding.about for finding in gone.findings]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    (tmp_path / "images").mkdir()
    return read_settings(data=tmp_path, database_url=database_url)


def an_edit(name: str) -> bytes:
    doc: canvas.CanvasDoc = Doc()
    canvas.nodes_of(doc)[name] = Map({"data": Map({"prompt": "x" * 100})})
    return doc.get_update()


async def test_a_database_as_it_is_left_behind_is_read_and_not_changed(settings: Settings, tmp_path: Path) -> None:
    engine = create_engine(settings.database)
    await migrate(engine)
    store = SqlStore(engine, "gone")
    for room, count in [("good", 3), ("broken", 1)]:
        await store.ensure(room)
        for number in range(count):
            await store.append({room: [an_edit(f"n{number}")]})
    async with engine.begin() as connection:
        await connection.execute(
            sa.update(documents).where(documents.c.id == "broken").values(snapshot=b"\xff" * 50, snapshot_seq=1)
        )
        await connection.execute(sa.delete(document_updates).where(document_updates.c.room == "broken"))
        before = (await connection.execute(sa.select(documents).order_by(documents.c.id))).all()
    report = await examine(settings, tmp_path / "images", None)
    assert {(finding.about, finding.room) for finding in report.findings} == {
        ("document", "broken"),
        ("mirror", "broken"),
        ("mirror", "good"),
    }
    facts = {room.room: room for room in report.rooms}
    assert (facts["good"].nodes, facts["good"].clients, facts["good"].log_rows) == (3, 3, 3)
    assert facts["good"].structs is None
    assert 0 <= facts["good"].log_age_s < 60
    closer = await examine(settings, tmp_path / "images", "good", tmp_path / "dump")
    assert (closer.rooms[0].structs or 0) >= 9
    doc: canvas.CanvasDoc = Doc()
    doc.apply_update((tmp_path / "dump").read_bytes())
    assert sorted(canvas.node_ids(doc)) == ["n0", "n1", "n2"]
    assert (tmp_path / "dump").stat().st_mode & 0o077 == 0
    await examine(settings, tmp_path / "images", "broken", tmp_path / "raw")
    assert unpack((tmp_path / "raw").read_bytes())[0] == b"\xff" * 50
    async with engine.begin() as connection:
        assert (await connection.execute(sa.select(documents).order_by(documents.c.id))).all() == before
        await connection.execute(sa.delete(document_updates).where(document_updates.c.seq == 2))
    report = await examine(settings, tmp_path / "images", "good")
    assert [finding.about for finding in report.findings] == ["log", "mirror"]
    for path, room in [(tmp_path / "dump", "good"), (tmp_path / "no" / "folder", "good"), (tmp_path / "x", "nobody")]:
        with pytest.raises(StartupError):
            await examine(settings, tmp_path / "images", room, path)
    await engine.dispose()


async def test_a_database_that_is_away_or_not_made_yet_is_a_finding(tmp_path: Path) -> None:
    away = read_settings(data=tmp_path, database_url="postgresql://u:hunter2@127.0.0.1:1/d")
    report = await examine(away, tmp_path, None)
    assert [finding.about for finding in report.findings] == ["database"]
    assert "hunter2" not in json.dumps(report.to_json())
    nothing = read_settings(data=tmp_path)
    report = await examine(nothing, tmp_path, None)
    assert [finding.about for finding in report.findings] == ["database"]
    assert not (tmp_path / "darkroom.db").exists()
    empty = read_settings(data=tmp_path, database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    (tmp_path / "empty.db").touch()
    assert [finding.about for finding in (await examine(empty, tmp_path, None)).findings] == ["schema"]


async def test_the_command_tells_people_and_programs(tmp_path: Path) -> None:
    async with command("doctor", "--json", DARKROOM_DATA=str(tmp_path)) as process:
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert {"database", "images"} == {finding["about"] for finding in json.loads(out)["findings"]}
    async with command("doctor", "--room-dump", "x", DARKROOM_DATA=str(tmp_path)) as process:
        out, told = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert told.startswith(b"darkroom: --room-dump: name the canvas")
