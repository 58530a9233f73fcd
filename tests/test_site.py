"""The documentation builds as a site: no link is broken, and the API page has every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dstrun

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_contents(site: Path) -> None:
    linked = set(re.findall(r'href="(\w+)\.html"', (site / "index.html").read_text()))
    assert linked >= {page.stem for page in (ROOT / "docs").glob("*.md")}


def test_the_api_has_every_public_name(site: Path) -> None:
    shown = set(re.findall(r'<h3 id="dstrun\.([\w.]+)"', (site / "api.html").read_text()))
    assert shown == set(dstrun.PUBLIC.values())
