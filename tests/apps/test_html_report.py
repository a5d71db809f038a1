"""The report: its numbers are those of the SQL beside them, and what people wrote is text in it, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.apps import report
from featurestore.errors import OutputError, QueryError
from tests.once import copied
from tests.small import change_recipe, copy, invoke, make_small, small_store

HOSTILE = "a <script>alert(1)</script> \"b\" 'c' &amp; <!-- .png"
GONE = "gone <img src=x onerror=alert(2)>.png"
CELL = "</td></table><script>alert(3)</script> \"Monet\" & 'son'"
VOID = {"meta", "img", "input", "br", "link"}
WITHIN_SVG = {"path", "rect", "line", "polyline"}


@dataclass
class Query:
    """A query of the page and the numbers of the table before it."""

    text: str = ""
    numbers: list[float] = field(default_factory=list)


class Page(HTMLParser):
    """What a report holds. Fails where an element is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.queries: dict[str, list[Query]] = {"SQL": [], "Python": []}
        self.section = ""
        self._numbers: list[float] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "section":
            self.section = values["id"] or ""
        if tag in {"table", "ul"}:
            self._numbers = []
        if tag == "data":
            self._numbers.append(float(values["value"] or "nan"))
        if tag == "pre":
            language = (values["aria-label"] or "").split()[0]
            self.queries[language].append(Query(numbers=self._numbers))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "pre":
            language = "Python" if self.texts["pre"][-1].startswith("model =") else "SQL"
            self.queries[language][-1].text = self.texts["pre"][-1]

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [values for name, values in self.tags if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of six small pictures with hostile names, cells and an error. Not to be changed."""

    def make(folder: Path) -> None:
        images = folder / "images"
        make_small(images, n=4)
        (images / HOSTILE).parent.mkdir()  # it has a slash
        shutil.copy(images / "000.png", images / HOSTILE)
        cv2.imwrite(str(images / "empty.png"), np.full((60, 80, 3), 128, np.uint8))
        quoted = ['"{}"'.format(text.replace('"', '""')) for text in (HOSTILE, GONE, CELL)]
        lines = [
            'filename,subset,"<b>""artist""</b>",many',
            *(f"{n:03d}.png,{'test' if n == 3 else 'train'},{quoted[2]},{n}" for n in range(4)),
            *(f"{name},train,,{n}" for n, name in enumerate([*quoted[:2], "empty.png"], start=4)),
        ]
        (images / "dataset.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        store = small_store(folder / "store <i>&", images)
        change_recipe(store, {"fit_pca": {"n_components": 4}, "project": {"top": 50}})
        store.run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "hostile-report", make) / "store <i>&")


@pytest.fixture(scope="module")
def text(hostile: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the store ``hostile``."""
    return report(hostile, tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


def test_every_number_is_that_of_the_sql_beside_it(hostile: FeatureStore, text: str) -> None:
    queries = Page(text).queries["SQL"]
    assert len(queries) > 15
    for query in queries:
        found = hostile.sql(query.text).fetchall()
        numbers = [float(value) for row in found for value in row if isinstance(value, int | float)]
        assert query.numbers == numbers, query.text


def test_the_spectrum_is_that_of_the_model(hostile: FeatureStore, text: str) -> None:
    (query,) = Page(text).queries["Python"]
    model = hostile.model("fit_pca")
    share = model["singular_values_"] ** 2 / (model["var_"].sum() * model["n_samples_seen_"])
    rows = np.array(query.numbers).reshape(-1, 3)
    np.testing.assert_allclose(rows[:, 1], share)
    np.testing.assert_allclose(rows[:, 2], np.cumsum(share))


def test_what_people_wrote_is_text(text: str) -> None:
    page = Page(text)
    assert [values for values in page.named("script") if values] == []
    assert len(page.named("script")) == 1
    assert {name for _, values in page.tags for name in values if name.startswith("on")} == set()
    assert {values["alt"] for values in page.named("img")} >= {HOSTILE, "000.png"}
    shown = page.texts["bdi"]
    assert {HOSTILE, GONE, CELL, '<b>"artist"</b>', "store <i>&", "the file does not exist"} <= set(shown)


def test_nothing_is_fetched_and_the_policy_allows_only_the_parts_of_the_page(text: str) -> None:
    page = Page(text)
    assert all((values["src"] or "").startswith("data:image/jpeg;base64,") for values in page.named("img"))
    assert all((values["href"] or "").startswith("#") for values in page.named("a"))
    assert page.named("link") == page.named("iframe") == page.named("form") == []
    assert [values for _, values in page.tags if "style" in values] == []  # the policy would refuse it
    policy = next(values["content"] for values in page.named("meta") if "http-equiv" in values) or ""
    assert "default-src 'none'" in policy
    for kind in ("style", "script"):
        (body,) = page.texts[kind]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_every_svg_is_well_formed(text: str) -> None:
    found = [f"<svg{part.split('</svg>')[0]}</svg>" for part in text.split("<svg")[1:]]
    assert len(found) > 10
    for svg in found:
        ElementTree.fromstring(svg)


def test_it_can_be_read_without_seeing_it(text: str) -> None:
    page = Page(text)
    ids = [values["id"] for _, values in page.tags if values.get("id")]
    assert len(ids) == len(set(ids))
    for tag, values in page.tags:
        assert set((values.get("aria-labelledby") or "").split()) <= set(ids), values
        if tag == "th":
            assert values["scope"] in {"col", "row"}
    assert len(page.named("table")) == len(page.named("caption"))
    assert {(values["href"] or "")[1:] for values in page.named("a")} <= set(ids)
    labels = {values["for"] for values in page.named("label")}
    assert labels == {values["id"] for values in page.named("input")} != set()


def test_the_same_store_makes_the_same_bytes(hostile: FeatureStore, text: str, tmp_path: Path) -> None:
    assert report(hostile, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_images_that_are_gone_leave_a_line(hostile: FeatureStore, tmp_path: Path) -> None:
    store = copy(hostile, tmp_path / "store")
    change_recipe(store, {"store": {"images": str(tmp_path)}})
    page = Page(report(store, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.named("img") == []
    assert len([line for line in page.texts["p"] if line.startswith("No picture: ")]) == 12
    assert "6 images of them have no picture: the file can't be used any more." in page.texts["p"]


def test_of_many_images_a_sample_is_shown(thirteen: FeatureStore, tmp_path: Path) -> None:
    page = Page(report(thirteen, tmp_path / "report.html", images=4, gallery=0).read_text(encoding="utf-8"))
    assert [values["alt"] for values in page.named("img")] == ["003.png", "006.png", "009.png", "012.png"]


def test_a_store_before_its_first_run_and_without_pictures(begun: FeatureStore, tmp_path: Path) -> None:
    page = Page(report(begun, tmp_path / "report.html", images=0, gallery=0).read_text(encoding="utf-8"))
    assert page.named("img") == []
    assert "never run" in page.texts["bdi"]
    assert "No image has been extracted yet." in page.texts["p"]
    assert "fit_pca has no model yet." in page.texts["p"]


def test_leakage_is_a_warning(hostile: FeatureStore, tmp_path: Path) -> None:
    store = copy(hostile, tmp_path / "store")
    data = hostile.path.parent / "images" / "dataset.csv"
    moved = tmp_path / "moved.csv"
    moved.write_text(data.read_text(encoding="utf-8").replace("000.png,train", "000.png,test"), encoding="utf-8")
    store.ingest(moved, yes=True)
    found = report(store, tmp_path / "report.html", images=0, gallery=0).read_text(encoding="utf-8")
    assert '<p class="warning">fit_pca: leakage: the model learnt from 1 image that' in found


def test_all_parameters_are_told(text: str) -> None:
    """Those that the variant does not name are muted: its defaults, and what changes no result."""
    cells = dict(re.findall(r'<td class="(text|text note)"><bdi>([^<]*max_pixels|[^<]*sift.sigma)', text))
    assert "extractor sift" in cells["text"]
    assert "sift.enable_precise_upscale false, max_pixels" in cells["text note"]


def test_an_untrusted_store_on_the_command_line(hostile: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = invoke("report", hostile.path, out, "--untrusted", "--gallery", 1, "--images", 3)
    assert done.exit_code == 0, done.exception
    assert done.stdout.startswith(f"{out}: ")
    assert len(Page(out.read_text(encoding="utf-8")).named("img")) == 2 + 3


def test_files_are_not_overwritten_unasked(tiny: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="exists already"):
        report(tiny, out)
    with pytest.raises(OutputError, match="lies in the store"):
        report(tiny, tiny.path / "report.html")
    with pytest.raises(QueryError, match="images is a number of images, at least 0, and not -1"):
        report(tiny, tmp_path / "other.html", images=-1)
    report(tiny, out, images=0, gallery=0, force=True)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
