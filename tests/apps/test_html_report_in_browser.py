"""The report in a browser, with the keyboard alone. `make test-browser` installs what drives one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.apps import report

pytestmark = pytest.mark.browser


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


@pytest.fixture(params=["light", "dark"])
def wide(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An open report with all details shown."""
    # axe is a foreign script, which the page's own policy refuses
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1100, "height": 800}, bypass_csp=True)
    opened = context.new_page()
    opened.goto(address)
    opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    yield opened
    context.close()


@pytest.mark.parametrize("width", [400, 1100])
def test_it_fits(wide: Any, width: int) -> None:
    wide.set_viewport_size({"width": width, "height": 800})
    assert wide.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [400, 1100])
def test_axe_finds_nothing(wide: Any, width: int, axe: str) -> None:
    wide.set_viewport_size({"width": width, "height": 800})
    wide.evaluate(axe)
    assert wide.evaluate("axe.run().then(found => found.violations.map(one => one.id))") == []
