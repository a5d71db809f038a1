"""The viewer: it answers one browser of this machine, with pages in which what people wrote is text."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from featurestore import FeatureStore
from featurestore.apps.viewer.queries import Queries
from featurestore.apps.viewer.serve import make_viewer
from featurestore.errors import OutputError, QueryError
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Silent
from featurestore.system.child_processes import owner_mark
from tests.once import copied
from tests.small import change_recipe, copy, invoke, make_small, small_store

PORT, TOKEN = 8765, "the-token"
HERE = f"http://127.0.0.1:{PORT}"
HOSTILE = "a <script>alert(1)</script> \"b\" 'c' &amp; #%2e?.png"
CELL = "</option></select><script>alert(3)</script> \"Monet\" & 'son'"
COLUMN = '<b>"artist"</b>'
PAGES = ("/", "/images", "/image?name=000.png", "/thumbnail?name=000.png", "/search", "/failures", "/run", "/run/now")


def make_client(store: FeatureStore) -> TestClient:
    return TestClient(make_viewer(store, token=TOKEN, port=PORT), base_url=HERE)


def opened(store: FeatureStore) -> TestClient:
    """Return a client that has shown the token."""
    client = make_client(store)
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def alert(answer: Any) -> str:
    """Return the one line of an error."""
    (line,) = re.findall(r'role="alert">(.*)</p>', answer.text)
    return str(line)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of five pictures with a hostile name, hostile cells, and a failure. Not to be changed."""

    def make(folder: Path) -> None:
        images = folder / "images"
        make_small(images, n=3)
        (images / HOSTILE).parent.mkdir()  # it has a slash
        shutil.copy(images / "000.png", images / HOSTILE)
        quoted = ['"{}"'.format(text.replace('"', '""')) for text in (HOSTILE, CELL, COLUMN)]
        lines = [
            f"filename,subset,{quoted[2]}",
            *(f"{n:03d}.png,train,{quoted[1] if n else ''}" for n in range(3)),
            f"{quoted[0]},train,plain",
            "gone <i>.png,test,plain",
        ]
        (images / "dataset.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        cv2.imwrite(str(folder / "outside.png"), np.zeros((60, 80, 3), np.uint8))
        store = small_store(folder / "store", images)
        change_recipe(store, {"fit_pca": {"n_components": 4}, "project": {"top": 20}})
        store.run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "hostile-viewer", make) / "store")


@pytest.fixture(scope="module")
def client(hostile: FeatureStore) -> TestClient:
    return opened(hostile)


@pytest.fixture(scope="module")
def answers(client: TestClient) -> dict[str, Any]:
    """The answers of all pages, by path."""
    return {path: client.get(path) for path in PAGES}


def test_without_the_token_nothing_is_shown(hostile: FeatureStore) -> None:
    stranger = make_client(hostile)
    for path in PAGES:
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8"), path
    for wrong in ("", "the-tokem", "é"):
        assert stranger.get("/", params={"token": wrong}).status_code == 403
        assert stranger.get("/", headers={b"Cookie": f"featurestore-view-{PORT}={wrong}".encode()}).status_code == 403
    assert not stranger.get("/").cookies


def test_the_token_is_shown_once(hostile: FeatureStore) -> None:
    client = make_client(hostile)
    answer = client.get("/", params={"token": TOKEN})
    assert answer.headers["set-cookie"] == f"featurestore-view-{PORT}={TOKEN}; HttpOnly; Path=/; SameSite=strict"
    assert "featurestore" in answer.text
    assert "url=/" in answer.text  # and so to the overview, without the token
    assert client.get("/run/now").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""])
def test_another_name_of_this_machine_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/run/now", headers={"Host": host})
    assert answer.status_code == 400
    assert "answers to 127.0.0.1" in answer.text


def test_localhost_is_this_machine(hostile: FeatureStore) -> None:
    client = TestClient(make_viewer(hostile, token=TOKEN, port=PORT), base_url=f"http://localhost:{PORT}")
    client.get("/", params={"token": TOKEN})
    assert client.get("/run/now").status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"http://localhost:{PORT}", f"https://127.0.0.1:{PORT}"]
)
def test_another_site_is_refused(client: TestClient, origin: str) -> None:
    assert client.get("/run/now", headers={"Origin": origin}).status_code == 403
    assert client.get("/run/now", headers={"Origin": HERE}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    answer = client.request(method, "/images")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_is_for_this_page_alone(answers: dict[str, Any], path: str) -> None:
    answer = answers[path]
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    if path not in ("/thumbnail?name=000.png", "/run/now"):  # a picture, and a part of a page
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert " style=" not in answer.text  # the policy would refuse it
        assert answer.text.count("<script") == 1


@pytest.mark.parametrize(
    "name",
    ["../outside.png", "/etc/passwd", "%2e%2e/outside.png", "dataset.csv", "../store/featurestore.toml", "", "\0"],
)
def test_only_images_of_the_store_are_served(client: TestClient, name: str) -> None:
    for path in ("/thumbnail", "/image"):
        answer = client.get(path, params={"name": name})
        assert answer.status_code == 404
        assert "there is no image" in answer.text


@pytest.mark.parametrize("path", ["/../images/000.png", "/%2e%2e/outside.png", "/thumbnail/000.png", "//etc/passwd"])
def test_no_path_is_a_file(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert alert(answer) == "there is no such page"


def test_a_thumbnail_is_a_small_picture(client: TestClient) -> None:
    answer = client.get("/thumbnail", params={"name": HOSTILE})
    assert answer.headers["content-type"] == "image/jpeg"
    pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert max(pixels.shape) <= 224


@pytest.mark.parametrize("path", ["/", "/images", "/failures", "/run"])
def test_what_people_wrote_is_text(answers: dict[str, Any], path: str) -> None:
    text = answers[path].text
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_the_page_of_an_image(client: TestClient, hostile: FeatureStore) -> None:
    for stage in ("extract", "quantize"):
        text = client.get("/image", params={"name": HOSTILE, "stage": stage}).text
        n = len(hostile.keypoints(HOSTILE, stage))
        assert text.split('class="keypoints"')[1].split("</svg>")[0].count("l") >= n  # a radius each
        assert f"The {n} largest keypoints of {stage}." in text
    assert "<script>alert" not in text
    for words in ("project", "of the recipe", "Its row of the dataset", "plain", "fit_pca learnt from it"):
        assert words in text
    assert alert(client.get("/image", params={"name": HOSTILE, "stage": "<b>"})).startswith(
        "there is no stage &#39;&lt;b"
    )


def test_an_image_without_a_file_says_why(client: TestClient) -> None:
    text = client.get("/image", params={"name": "gone <i>.png"}).text
    assert "No picture: gone &lt;i&gt;.png can&#39;t be drawn: the file does not exist (missing)" in text


def names(text: str) -> list[str]:
    """Return the images of a page."""
    return re.findall(r"<bdi>(.*?)</bdi></a>\n<span", text)


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, 5),
        ({"where": "subset = 'train'"}, 4),
        ({"where": "subset = 'train' -- all of them"}, 4),
        ({"where": "image_id IN (SELECT image_id FROM failures)"}, 1),
        ({"in.subset": "=test"}, 1),
        ({f"in.{COLUMN}": f"={CELL}"}, 2),
        ({f"in.{COLUMN}": "-"}, 1),
        ({f"in.{COLUMN}": "=plain", "in.subset": "=train"}, 1),
        ({"where": "true", "order": "most", "in.subset": ""}, 5),
        ({"where": "false"}, 0),
    ],
)
def test_images_are_filtered(client: TestClient, parameters: dict[str, str], found: int) -> None:
    answer = client.get("/images", params=parameters)
    assert answer.status_code == 200
    assert len(names(answer.text)) == found
    assert f"{found} image{'' if found == 1 else 's'}, page 1 of 1" in answer.text


def test_the_sql_of_a_page_has_its_images(client: TestClient, hostile: FeatureStore) -> None:
    text = client.get("/images", params={"where": "image_id > 1", "order": "fewest", f"in.{COLUMN}": f"={CELL}"}).text
    query = re.findall(r"<code>(SELECT.*?)</code>", text, re.DOTALL)[0]
    for entity, letter in (("&#34;", '"'), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        query = query.replace(entity, letter)
    assert [row[0] for row in hostile.sql(query)] == names(text) == ["002.png"]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("styl = 1", "Referenced column &#34;styl&#34; not found"),
        ("subset = ", "syntax error"),
        ("false) OR (true", "syntax error"),  # in parentheses it would choose what a list has left out
        ("true LIMIT 1", "syntax error"),
        ("true; DROP TABLE images", "sql takes one query"),
        ("subset = $x", "needs a value for $x"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "is another file"),
    ],
)
def test_wrong_sql_is_one_line(client: TestClient, where: str, line: str) -> None:
    answer = client.get("/images", params={"where": where})
    assert answer.status_code == 400
    assert line in alert(answer)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("parameters", [{"page": "0"}, {"page": "x"}, {"order": "<b>"}])
def test_wrong_addresses_are_one_line(client: TestClient, parameters: dict[str, str]) -> None:
    assert "<b>" not in alert(client.get("/images", params=parameters))


def test_a_column_with_many_values_is_asked_by_sql(client: TestClient) -> None:
    assert "write it as SQL" in alert(client.get("/images", params={"in.filename": "=000.png"}))


def test_pages_follow_each_other(thirteen: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.apps.viewer.browse.PAGE", 5)
    client, address, seen = opened(thirteen), "/images?where=image_id > 0", []
    for _ in range(3):
        text = client.get(address).text
        seen += names(text)
        address = "".join(re.findall(r'rel="next" href="(.*?)"', text)).replace("&amp;", "&")
    assert (seen, address) == ([f"{n:03d}.png" for n in range(1, 13)], "")
    beyond = client.get("/images?page=9").text
    assert "13 images, page 9 of 3" in beyond
    assert 'rel="prev" href="/images?order=dataset&amp;page=3"' in beyond


class Watching(Silent):
    """Asks the viewer whenever a run has got on."""

    def __init__(self, store: FeatureStore) -> None:
        self.client, self.seen = opened(store), list[str]()

    def advance(self, n_images: int) -> None:
        self.seen.append(self.client.get("/run/now").text)


def test_the_run_at_work_has_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(tmp_path / "images", n=3)
    store = small_store(tmp_path / "store", tmp_path / "images")
    watching = Watching(store)
    monkeypatch.setattr("featurestore.pipeline.extract_run.MAX_BLOCK", 1)
    with store._held("run", watching) as context:
        run_stages(context, Options(stages=("extract",), workers=0))
    for n, text in enumerate(watching.seen, start=1):
        assert f'<progress value="{n}" max="3" aria-label="Images done by extract">' in text
        assert "extract has been running for" in text
    assert len(watching.seen) == 3


def test_before_the_first_run(begun: FeatureStore) -> None:
    client = opened(begun)
    assert "<bdi>never run</bdi>" in client.get("/").text
    assert "26 images, page 1 of 1" in client.get("/images").text
    assert "No image failed." in client.get("/failures").text
    assert "No run is at work." in client.get("/run").text


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def test_nothing_in_the_store_changes(hostile: FeatureStore, tmp_path: Path) -> None:
    store = copy(hostile, tmp_path / "store")
    before = everything(store.path)
    client = opened(store)
    for path in (*PAGES, "/images?where=x(", "/nothing"):
        client.get(path)
        client.post(path)
    post(client, (hostile.path.parent / "images" / "001.png").read_bytes())
    assert everything(store.path) == before


def post(client: TestClient, data: bytes) -> Any:
    return client.post("/search", content=data, headers={"Origin": HERE})


def test_a_dropped_picture_is_searched_for(client: TestClient, hostile: FeatureStore) -> None:
    answer = post(client, (hostile.path.parent / "images" / "001.png").read_bytes())
    (first, *_) = hits = re.findall(r'href="(/match\?.*?)"', answer.text)
    assert "name=001.png" in first
    assert any("script" in address for address in hits)  # the hostile name, as a part of an address
    assert "<script>" not in answer.text
    page = client.get(first.replace("&amp;", "&")).text
    assert "<p>found: " in page
    assert 'class="pair" src="data:image/jpeg;base64,' in page


@pytest.mark.parametrize("path", ["../outside.png", "{images}/000.png", ""])
def test_a_picture_is_matched_with_images_of_the_store_alone(
    client: TestClient, hostile: FeatureStore, path: str
) -> None:
    answer = post(client, (hostile.path.parent / "images" / "001.png").read_bytes())
    (query,) = set(re.findall(r"query=([0-9a-f]+)", answer.text))
    path = path.format(images=hostile.path.parent / "images")
    assert alert(client.get("/match", params={"query": query, "name": path})).startswith("there is no image")
    for unknown in ("", "../" + query, path):
        line = alert(client.get("/match", params={"query": unknown, "name": "000.png"}))
        assert line.startswith("the viewer does not have this picture any more")


def test_what_is_no_picture_is_one_line(client: TestClient) -> None:
    for data in (b"", b"no picture", b"\x89PNG\r\n\x1a\n"):
        assert alert(post(client, data)).startswith("this is no picture")


def test_pictures_are_bounded(client: TestClient, hostile: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (hostile.path.parent / "images" / "001.png").read_bytes()
    monkeypatch.setattr("featurestore.apps.viewer.queries.MOST_PIXELS", 100)
    assert "pixels; take one of at most" in alert(post(client, data))
    monkeypatch.setattr("featurestore.apps.viewer.pages.MOST_BYTES", len(data) - 1)
    assert post(client, data).status_code == 413


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_pictures_are_taken_from_the_own_page_alone(client: TestClient, origin: str | None) -> None:
    answer = client.post("/search", content=b"x", headers={} if origin is None else {"Origin": origin})
    assert answer.status_code == 403


def test_the_last_pictures_are_kept() -> None:
    queries = Queries()
    data = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    names = [queries.add(data) for _ in range(10)]
    with pytest.raises(QueryError, match="search for it again"):
        queries.path(names[1])
    assert queries.path(names[2]).read_bytes() == data
    folder = queries.path(names[2]).parent
    assert len(list(folder.iterdir())) == 8
    assert owner_mark() in folder.name, "another process removes what a killed viewer leaves"


def test_an_untrusted_store_is_shown(tiny: FeatureStore, tmp_path: Path) -> None:
    store = copy(tiny, tmp_path / "store")
    next((store.path / "partitions" / "quantize").rglob("*.parquet")).write_bytes(b"PAR1")
    vetted = FeatureStore.open_untrusted(store.path)
    client, (line,) = opened(vetted), vetted.left_out
    assert f'<p class="warning">{escape(line).replace("&#x27;", "&#39;")}</p>' in client.get("/").text
    assert "largest keypoints of project." in client.get("/image?name=000.png").text


def test_a_port_in_use_is_one_line(tiny: FeatureStore) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = invoke("view", tiny.path, "--port", port, "--no-browser")
    assert isinstance(done.exception, OutputError)
    assert str(done.exception).startswith(
        f"port {port} of 127.0.0.1 can't be used: Address already in use; name another"
    )


def test_a_missing_extra_is_named(tiny: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = invoke("view", tiny.path, "--no-browser")
    assert "pip install 'featurestore[view]'" in str(done.exception)


def test_ctrl_c_ends_it(tiny: FeatureStore) -> None:
    from urllib.request import HTTPCookieProcessor, build_opener

    command = [sys.executable, "-m", "featurestore", "view", str(tiny.path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        address, hint = viewer.stdout.readline().strip(), viewer.stdout.readline()
        browser = build_opener(HTTPCookieProcessor())
        with browser.open(address) as welcome:
            assert b"Go on to the store" in welcome.read()
        with browser.open(address.partition("?")[0] + "run/now") as page:
            assert b"No run is at work." in page.read()
        viewer.send_signal(signal.SIGINT)
        out, err = viewer.communicate(timeout=60)
    assert (viewer.returncode, hint, out, err) == (0, "Ctrl-C ends it\n", "\n", "")
