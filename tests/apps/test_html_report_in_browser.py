"""The report in a browser, with the keyboard alone. `make test-browser` installs what drives one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.apps import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
AXE = os.environ.get("FEATURESTORE_TEST_AXE", "")  # axe.min.js of npm's axe-core

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; see make test-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no {', '.join(BROWSERS)} on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tiny: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report."""
    return report(tiny, tmp_path_factory.mktemp("report") / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """An open report. Fails at the end if the browser has complained, as it does of what the policy refuses."""
    context = browser.new_context(viewport={"width": 400, "height": 800})
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(address)
    yield opened
    context.close()
    assert said == []


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.textContent.trim()"))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_the_first_key_skips_to_the_content(page: Any) -> None:
    press(page, "Tab")
    assert focused(page) == "Skip to the content"
    press(page, "Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_sql_is_opened_and_copied_with_keys(page: Any) -> None:
    press(page, "Tab", "Enter", "Tab", "Tab")  # past the region of the first table
    assert focused(page) == "SQL of Images by subset"
    press(page, "Enter", "Tab", "Tab")
    assert focused(page) == "Copy the SQL of Images by subset"
    press(page, "Enter")
    page.wait_for_function("document.activeElement.textContent.startsWith('Copied')")


def test_keypoints_are_shown_with_keys(page: Any) -> None:
    shown = "getComputedStyle(document.querySelector('.keypoints')).opacity"
    assert page.evaluate(shown) == "0"
    page.locator(".frame input").first.focus()
    press(page, "Space")
    assert page.evaluate(shown) == "1"
    press(page, "Tab")
    assert page.evaluate(shown) == "1"  # it stays


@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_axe_finds_nothing(browser: Any, address: str, scheme: str, width: int) -> None:
    # axe is a foreign script, which the page's own policy refuses
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    opened = context.new_page()
    opened.goto(address)
    opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    if not AXE:
        pytest.skip("FEATURESTORE_TEST_AXE names no axe.min.js (npm install axe-core)")
    opened.evaluate(Path(AXE).read_text(encoding="utf-8"))
    assert opened.evaluate("axe.run().then(found => found.violations.map(one => one.id))") == []
    context.close()
