"""Setting up: dev.py, the page build and what pins the versions."""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from hatch_build import ROOT

LOCKS = [ROOT / folder / "package-lock.json" for folder in ("static", "tests/browser", "tests/story/node")]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = """
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
const title = readFileSync('title.txt', 'utf8')
if (title === 'broken') throw new Error('the title is broken')
mkdirSync('dist', { recursive: true })
writeFileSync('dist/index.html', `${title} ${process.version}`)
"""
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["server"]
[tool.hatch.build.targets.wheel.hooks.custom]
path = "hatch_build.py"
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A project with our build and set-up scripts, a page without dependencies, and a space in its path."""
    project = tmp_path / "a project"
    page = project / "static"
    page.mkdir(parents=True)
    for name in ("dev.py", "hatch_build.py"):
        shutil.copy(ROOT / name, project)
    (project / ".gitignore").write_text("/static/dist/\nnode_modules/\n/.cache/\n")
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "server").mkdir()
    (project / "server" / "__init__.py").touch()
    about = {"name": "page", "version": "1.0.0", "private": True}
    (page / "package.json").write_text(json.dumps({**about, "scripts": {"build": "node build.mjs"}}))
    (page / "package-lock.json").write_text(json.dumps({**about, "lockfileVersion": 3, "packages": {"": about}}))
    (page / "build.mjs").write_text(BUILD)
    (page / "title.txt").write_text("first")
    return project


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder with next to nothing in its environment."""
    least = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**least, **env},
        check=False,
        capture_output=True,
        text=True,
    )


def built(project: Path) -> str:
    """The first word of the built page."""
    return (project / "static" / "dist" / "index.html").read_text().split()[0]


def test_help_names_every_command() -> None:
    done = run(ROOT, "dev.py", "--help")
    assert done.returncode == 0
    for command in ("run", "test", "check", "bench"):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE)


def test_an_unknown_command_is_refused() -> None:
    done = run(ROOT, "dev.py", "fly")
    assert done.returncode == 2
    assert "no command 'fly'" in done.stderr


def test_a_python_without_venv_is_told_the_fix(tiny: Path) -> None:
    (tiny / "constraints.txt").touch()
    program = "import sys, runpy; sys.modules['ensurepip'] = None; sys.argv[1:] = ['run']; runpy.run_path('dev.py', "
    done = run(tiny, "-c", program + "run_name='__main__')")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("apt install python3-venv")
    assert not (tiny / ".venv").exists()


def test_an_old_python_is_told_so(tiny: Path) -> None:
    program = "import sys, runpy; sys.version_info = (3, 10, 4); runpy.run_path('dev.py', run_name='__main__')"
    done = run(tiny, "-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith("Darkroom needs Python 3.11 or newer")


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("NewConnectionError: [Errno -3]", "step: no network; the first set-up downloads packages"),
        ("npm error code ENOTFOUND", "step: no network; the first set-up downloads packages"),
        ("a real fault", "step: failed\na real fault"),
    ],
)
def test_a_failed_step_says_why(printed: str, told: str) -> None:
    step = f"raise SystemExit({printed!r})"
    program = f"import dev, sys; dev.quietly('step', ['-c', {step!r}], python=sys.executable)"
    done = run(ROOT, "-c", program)
    assert f"StepError: {told}" in done.stderr


def test_being_stopped_stops_what_runs() -> None:
    child = "print('up', flush=True); import signal; signal.pause()"
    program = (
        "import dev, signal, sys; signal.signal(signal.SIGTERM, dev.leave); "
        f"dev.attended([sys.executable, '-c', {child!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.send_signal(signal.SIGTERM)
        # The child holds the other end of the pipe: the output ends only when it is gone too.
        assert parent.stdout.read() == ""
    assert parent.returncode == 128 + signal.SIGTERM


def test_an_install_depends_on_versions_and_place_only(tiny: Path) -> None:
    def key() -> str:
        return run(tiny, "-c", "import dev; print(dev.install_key('dev', '3.11'))").stdout

    (tiny / "constraints.txt").write_text("a==1\n")
    first = key()
    (tiny / "server" / "app.py").touch()
    assert key() == first
    (tiny / "constraints.txt").write_text("a==2\n")
    assert key() != first


def test_the_page_is_built_only_when_its_sources_changed(tiny: Path) -> None:
    assert run(tiny, "hatch_build.py").returncode == 0
    assert built(tiny) == "first"
    (tiny / "static" / "dist" / "index.html").write_text("kept")
    assert run(tiny, "hatch_build.py").returncode == 0
    assert built(tiny) == "kept"
    (tiny / "static" / "title.txt").write_text("second")
    assert run(tiny, "hatch_build.py").returncode == 0
    assert built(tiny) == "second"


def test_a_failed_page_build_is_shown_and_tried_again(tiny: Path) -> None:
    title = tiny / "static" / "title.txt"
    title.write_text("broken")
    for _ in range(2):
        done = run(tiny, "hatch_build.py")
        assert done.returncode == 1
        assert "the title is broken" in done.stderr
    title.write_text("mended")
    assert run(tiny, "hatch_build.py").returncode == 0
    assert built(tiny) == "mended"


def test_a_wheel_holds_the_built_page_and_can_be_made_from_the_source_archive(tiny: Path) -> None:
    done = run(tiny, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel")
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(next((tiny / "dist").glob("*.tar.gz")), tiny / "unpacked")
    source = next((tiny / "unpacked").iterdir())
    assert not (source / "static" / "dist").exists()
    done = run(source, "-m", "hatchling", "build", "-t", "wheel")
    assert done.returncode == 0, done.stderr
    for wheel in (tiny / "dist", source / "dist"):
        with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
            assert archive.read("server/page/index.html").startswith(b"first")


def test_a_wheel_can_leave_the_page_out(tiny: Path) -> None:
    done = run(tiny, "-m", "hatchling", "build", "-t", "wheel", DARKROOM_SKIP_WEB="1")
    assert done.returncode == 0, done.stderr
    assert not (tiny / "static" / "node_modules").exists()
    with zipfile.ZipFile(next((tiny / "dist").glob("*.whl"))) as archive:
        assert "server/page/index.html" not in archive.namelist()


def test_every_dependency_is_pinned() -> None:
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    names = {canonical(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for one in wanted}
    assert names <= {canonical(name) for name in PINS}


def test_the_pinned_versions_are_the_tested_ones() -> None:
    installed = {canonical(one.name): one.version for one in importlib.metadata.distributions()}
    differing = {name: installed.get(canonical(name), version) for name, version in PINS.items()}
    assert differing == PINS


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_no_lock_names_a_download_address(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name and not package.get("link"))


def test_ci_runs_what_people_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "python3 dev.py test" in (ROOT / ".ci" / "run").read_text()


def canonical(name: str) -> str:
    """A package name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
