"""A browser for the pages of the report and of the viewer. `make test-browser` installs what drives one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.browsers import ABSENT, find_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; see make test-browser")
    program = find_browser()
    if program is None:
        pytest.skip(ABSENT)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def axe() -> str:
    """The script of npm's axe-core, which looks for barriers."""
    path = os.environ.get("FEATURESTORE_TEST_AXE", "")
    if not path:
        pytest.skip("FEATURESTORE_TEST_AXE names no axe.min.js (npm install axe-core)")
    return Path(path).read_text(encoding="utf-8")
