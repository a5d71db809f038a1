"""The viewer in a browser: open, filter, click, search. `make test-browser` installs what drives one."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from featurestore import FeatureStore

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tiny: FeatureStore) -> Iterator[str]:
    """The address of a viewer, with its token."""
    command = [sys.executable, "-m", "featurestore", "view", str(tiny.path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        yield viewer.stdout.readline().strip()
        viewer.terminate()


@pytest.fixture(params=[("light", 1100), ("dark", 400)], ids=["light", "dark and narrow"])
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The overview. Fails at the end if the browser has complained, as it does of what the policy refuses."""
    scheme, width = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(address)
    opened.wait_for_url(address.partition("?")[0])  # the token is gone
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert said == []


def go(page: Any, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("heading", name=name, exact=True, level=1).wait_for()


def test_images_are_filtered_and_looked_at(page: Any) -> None:
    go(page, "Images")
    page.get_by_label("SQL over the columns").fill("image_id > 0")
    page.get_by_role("button", name="Show").click()
    page.get_by_text("2 images, page 1 of 1").wait_for()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].every(one => one.naturalWidth)")
    page.get_by_role("link", name="001.png").click()
    page.get_by_role("heading", name="001.png").wait_for()
    opacity = "getComputedStyle(document.querySelector('.keypoints')).opacity"
    assert page.evaluate(opacity) == "1"
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.mouse.move(0, 0)
    page.get_by_role("checkbox").blur()
    assert page.evaluate(opacity) == "0"


DROP = """([where, data]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "query.png", { type: "image/png" }));
  const handled = ["dragover", "drop"].map((kind) => !document.querySelector(where).dispatchEvent(
    new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })));
  return handled.every(Boolean);
}"""


@pytest.mark.parametrize("where", [".drop label", "footer"])
def test_a_file_that_is_dropped_on_the_page_is_searched_for(page: Any, tiny: FeatureStore, where: str) -> None:
    go(page, "Search")
    data = base64.b64encode((tiny.path.parent / "images" / "001.png").read_bytes()).decode()
    assert page.evaluate(DROP, [where, data])  # else the browser would leave the page for the file
    page.get_by_role("link", name="001.png").click()
    page.get_by_text("matches agree").wait_for()
    page.wait_for_load_state("load")
    assert page.evaluate("document.querySelector('.pair').naturalWidth") > 0


def test_a_picture_is_searched_for(page: Any, tiny: FeatureStore) -> None:
    go(page, "Search")
    page.get_by_label("Drop a picture here").set_input_files(str(tiny.path.parent / "images" / "001.png"))
    page.get_by_role("link", name="001.png").click()
    page.get_by_role("heading", name="001.png").wait_for()
    page.wait_for_load_state("load")
    assert page.evaluate("document.querySelector('.pair').naturalWidth") > 0


def test_the_run_is_asked_for_again(page: Any) -> None:
    go(page, "Run")
    with page.expect_response("**/run/now"):
        page.get_by_text("No run is at work.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, address: str, axe: str, scheme: str) -> None:
    # axe is a foreign script, which the page's own policy refuses
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    opened, home = context.new_page(), address.partition("?")[0]
    opened.goto(address)
    opened.wait_for_url(home)
    for path in ("", "images", "images?where=x", "image?name=000.png", "search", "failures", "run"):
        opened.goto(home + path)
        opened.evaluate(axe)
        assert opened.evaluate("axe.run().then(found => found.violations.map(one => one.id))") == [], path
    context.close()
