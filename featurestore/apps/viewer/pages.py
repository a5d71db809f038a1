"""The pages of the viewer. Each asks the store when it is opened, so that it shows the store of that moment."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from featurestore._version import __version__
from featurestore.api import FeatureStore
from featurestore.apps.html_report.page import content_policy, make_environment, read_template
from featurestore.apps.html_report.quality import failures
from featurestore.apps.html_report.thumbnails import gallery_image, jpeg, jpeg_uri
from featurestore.apps.html_report.write import make_report
from featurestore.apps.viewer.browse import ORDERS, choose, find_facets, read_choice
from featurestore.apps.viewer.guard import UPLOAD
from featurestore.apps.viewer.one_image import describe_image
from featurestore.apps.viewer.queries import MOST_BYTES, TOO_LARGE, Queries
from featurestore.apps.viewer.run_at_work import describe_run
from featurestore.errors import FeatureStoreError, QueryError
from featurestore.matching import Verdict
from featurestore.progress import Silent
from featurestore.system import reason_unreadable

TEMPLATES = Path(__file__).parent / "templates"
THREADS = 8  # that ask the store at once
LARGE = 1024  # pixels of the longer side of a picture on its own page
THUMBNAIL = 224
MOST_KEYPOINTS = 2000
MINUTES = 10  # that a browser keeps a thumbnail
HITS = 20
PAGES = {"Overview": "/", "Images": "/images", "Search": "/search", "Failures": "/failures", "Run": "/run"}

Page = Callable[[Request], Response]

LOG = logging.getLogger("featurestore.apps")


def make_pages(store: FeatureStore) -> Starlette:
    """Return the application that has the pages of a store. It knows no one: see `guard`."""
    pages = Pages(store)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="viewer")
    routes: dict[str, Page] = {
        "/": pages.overview,
        "/images": pages.images,
        "/image": pages.image,
        "/thumbnail": pages.thumbnail,
        "/search": pages.search,
        "/match": pages.match,
        "/failures": pages.failures,
        "/run": pages.run,
        "/run/now": pages.run_now,
    }
    return Starlette(
        routes=[
            Route(UPLOAD, _with_upload(threads, pages.results), methods=["POST"]),
            *(Route(path, _in_thread(threads, page)) for path, page in routes.items()),
        ],
        exception_handlers={
            FeatureStoreError: pages.refuse,
            OSError: pages.refuse,
            HTTPException: pages.refuse,
        },
    )


def image_address(filename: str, **parameters: str) -> str:
    """Return the address of the page of an image."""
    return f"/image?{urlencode({'name': filename, **parameters})}"


def thumbnail_address(filename: str) -> str:
    """Return the address of the thumbnail of an image."""
    return f"/thumbnail?{urlencode({'name': filename})}"


def match_address(query: str, filename: str) -> str:
    """Return the address of the page with the matches of a dropped picture and an image."""
    return f"/match?{urlencode({'query': query, 'name': filename})}"


class Pages:
    """The pages of a store."""

    def __init__(self, store: FeatureStore) -> None:
        """Prepare the templates."""
        self._store = store
        self._queries = Queries()
        self._searching = threading.Lock()  # a search takes all the memory that one picture needs
        self._style = read_template("report.css") + read_template("viewer.css", TEMPLATES)
        self._script = read_template("report.js") + read_template("viewer.js", TEMPLATES)
        self._policy = content_policy(self._style, self._script, live=True) + "; frame-ancestors 'none'"
        self._environment = make_environment(TEMPLATES, image_address=image_address)
        self._environment.globals.update(pages=PAGES, version=__version__, thumbnail_address=thumbnail_address)

    def overview(self, request: Request) -> Response:
        """Answer with what a report says, without its pictures."""
        report = make_report(self._store, Silent())
        return self._page("overview", "Overview", report=report, warnings=self._store.left_out)

    def images(self, request: Request) -> Response:
        """Answer with a page of the images that are chosen."""
        chosen, error = None, None
        choice = read_choice(request.query_params)
        with self._store.snapshot() as ask:
            facets = find_facets(ask, choice)
            try:
                chosen = choose(ask, choice, facets)
            except QueryError as found:
                error = _line_of(found)
        return self._page(
            "images",
            "Images",
            status=200 if error is None else 400,
            choice=choice,
            chosen=chosen,
            facets=facets,
            orders=ORDERS,
            error=error,
        )

    def image(self, request: Request) -> Response:
        """Answer with an image, its keypoints and its results."""
        filename, stage = request.query_params.get("name", ""), request.query_params.get("stage") or None
        about = describe_image(self._store, filename, stage)
        picture = gallery_image(
            self._store, filename, about.n_descriptors, longest=LARGE, most=MOST_KEYPOINTS, stages=[about.stage]
        )
        stages = {name: image_address(filename, stage=name) for name in about.stages}
        return self._page("image", "Image", about=about, picture=picture, stages=stages)

    def thumbnail(self, request: Request) -> Response:
        """Answer with a small picture of an image of the store."""
        pixels = self._store.pixels(request.query_params.get("name", ""))
        data = jpeg(pixels, THUMBNAIL)
        if data is None:
            raise QueryError("OpenCV can't write this picture as a JPEG")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": f"private, max-age={60 * MINUTES}"})

    def search(self, request: Request) -> Response:
        """Answer with the page that takes a picture to search for."""
        return self._page("search", "Search")

    def results(self, data: bytes) -> Response:
        """Answer with what a picture shows a part of, as a part of that page."""
        try:
            query = self._queries.add(data)
            with self._searching:
                found = self._store.search(self._queries.path(query), top=HITS)
        except FeatureStoreError as error:
            return HTMLResponse(self._environment.get_template("no_results.html.j2").render(line=_line_of(error)))
        addresses = {hit.filename: match_address(query, hit.filename) for hit in found.hits}
        template = self._environment.get_template("results.html.j2")
        verdicts = [verdict for verdict in Verdict if any(hit.status is verdict for hit in found.hits)]
        return HTMLResponse(template.render(result=found, addresses=addresses, verdicts=verdicts))

    def match(self, request: Request) -> Response:
        """Answer with a dropped picture and an image of the store, and a line for each match that agrees."""
        filename = request.query_params.get("name", "")
        self._store.info(filename)  # a name that is not in the store would be taken for a path
        query = self._queries.path(request.query_params.get("query", ""))
        with self._searching:
            picture = self._store.show_match(query, filename, longest=LARGE)
        return self._page(
            "match", "Match", filename=filename, line=picture.title, picture=jpeg_uri(picture.pixels, 2 * LARGE)
        )

    def failures(self, request: Request) -> Response:
        """Answer with the images that failed."""
        with self._store.snapshot() as ask:
            return self._page("failures", "Failures", section=failures(ask))

    def run(self, request: Request) -> Response:
        """Answer with the run at work, which the page's script asks for again and again."""
        return self._page("run", "Run", now=describe_run(self._store))

    def run_now(self, request: Request) -> Response:
        """Answer with the part of the page that changes."""
        return HTMLResponse(self._environment.get_template("run_now.html.j2").render(now=describe_run(self._store)))

    def refuse(self, request: Request, error: Exception) -> Response:
        """Answer with an error as one line, on a page where a page was asked for."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        line = "there is no such page" if isinstance(error, HTTPException) else _line_of(error)
        if request.url.path == "/thumbnail":
            return PlainTextResponse(f"error: {line}\n", status)
        return self._page("refusal", "Error", status=status, line=line)

    def _page(self, name: str, title: str, *, status: int = 200, **values: Any) -> Response:
        text = self._environment.get_template(f"{name}.html.j2").render(
            title=title, store_name=self._store.path.name, style=self._style, script=self._script, **values
        )
        return HTMLResponse(text, status, headers={"Content-Security-Policy": self._policy})


def _in_thread(threads: ThreadPoolExecutor, page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that is answered in a thread, and that ends with the viewer even if the thread does not."""

    async def answer(request: Request) -> Response:
        return await _answered(threads, request, partial(page, request))

    return answer


def _with_upload(
    threads: ThreadPoolExecutor, page: Callable[[bytes], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint like that of `_in_thread`, for a page that is handed the body of the request."""

    async def answer(request: Request) -> Response:
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > MOST_BYTES:
                return PlainTextResponse(f"error: {TOO_LARGE}\n", 413)
        return await _answered(threads, request, partial(page, bytes(data)))

    return answer


async def _answered(threads: ThreadPoolExecutor, request: Request, work: Callable[[], Response]) -> Response:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except asyncio.CancelledError:
        return PlainTextResponse("error: the viewer has ended\n", 503)
    except (FeatureStoreError, OSError):
        raise
    except Exception:
        LOG.exception("%s has no answer; please report this", request.url.path)
        raise


def _line_of(error: Exception) -> str:
    """Return an error in one line."""
    reason = reason_unreadable(error) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(reason).split())
