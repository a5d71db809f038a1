"""Searching verbs of the command line: match, search, index."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.common import (
    FORCE,
    OUTPUT,
    STORE,
    UNTRUSTED,
    answer,
    as_json,
    make_folder,
    open_store,
    refuse_picture,
    without_python,
)
from featurestore.cli.named import StoreVerb, complete_image
from featurestore.errors import FeatureStoreError, MissingDependency, QueryError
from featurestore.formatting import counted
from featurestore.matching import MIN_INLIERS, Verdict
from featurestore.system import command_line, shown

if TYPE_CHECKING:
    from featurestore.api import FeatureStore
    from featurestore.matching import PairMatch
    from featurestore.query import SearchResult

LONGEST_STEM = 100  # bytes of a name that become part of a picture's name; the two and numbers fit into 255

MIN = click.option(
    "--min-inliers",
    default=MIN_INLIERS,
    show_default=True,
    type=click.IntRange(min=1),
    help="The least inliers of a found image.",
)


@click.command(cls=StoreVerb, short_help="Match two images.")
@STORE
@click.argument("query", shell_complete=complete_image)
@click.argument("image", shell_complete=complete_image)
@MIN
@click.option("--json", "json_wanted", is_flag=True, help="As JSON, with the transform, the outline and all inliers.")
@OUTPUT
@FORCE
@UNTRUSTED
def match(
    store: Path,
    query: str,
    image: str,
    min_inliers: int,
    json_wanted: bool,
    output: Path | None,
    force: bool,
    untrusted: bool,
) -> None:
    """Tell whether QUERY shows a part of IMAGE.

    Both are names of images in the store, or files outside of it, which are encoded with the store's models. With -o
    the two are drawn side by side, with their matches. The exit code is 0 whether they match or not.
    """
    opened = open_store(store, untrusted=untrusted)
    if output is not None:
        refuse_picture(output, opened.path, force=force)
    found = opened.match(query, image, min_inliers=min_inliers)
    if output is not None:
        opened.show_match(query, image, found).save(output, force=force)
    answer(as_json({"query": query, "image": image, **found.as_dict()}) if json_wanted else _text(found))


def _text(found: PairMatch) -> str:
    head = {
        Verdict.FOUND: "found",
        Verdict.POSSIBLE: "possible: look at it",
        Verdict.CANDIDATE: "no match",
    }[found.status]
    lines = [f"{head}; {_counts(found)}"]
    if found.status is not Verdict.CANDIDATE and found.outline is not None:
        places = " ".join(f"({x:z.0f}, {y:z.0f})" for x, y in found.outline.tolist())
        lines.append(f"scale {found.scale:.3f}, turned by {found.degrees:z.1f} degrees; the query's corners: {places}")
    return "\n".join(lines)


def _counts(found: PairMatch) -> str:
    border = f", and {found.on_border:,} on the borders of both that do not count" if found.on_border else ""
    return f"{found.inliers:,} of {found.n_matches:,} matches agree{border}"


@click.command(cls=StoreVerb, short_help="Find the images that a picture shows a part of.")
@STORE
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...", shell_complete=complete_image)
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Hits of each query.")
@click.option("--where", help="SQL over the columns of images: search only these.")
@MIN
@click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "exact", "index"]),
    help="Compare all descriptors, or search through the index; auto takes the index if it covers the store.",
)
@click.option("--csv", "form", flag_value="csv", help="As CSV: a row for each hit.")
@click.option("--json", "form", flag_value="json", help="As JSON: a line for each query, with transforms and inliers.")
@click.option(
    "--draw",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A new folder for pictures of each query beside every image that is found or possible.",
)
@UNTRUSTED
def search(
    store: Path, queries: tuple[str, ...], form: str | None, draw: Path | None, untrusted: bool, **options: Any
) -> None:
    """Find the images that each QUERY shows a part of.

    A QUERY is the name of an image in the store, a file outside of it, or a folder of files. The status of a hit is
    found: it shows the same; possible: look at it; or candidate: similar descriptors, but no more matches agree than
    chance gives, so it is not a match. Candidates fill up the --top hits.

    The exit code is 0 whether something is found or not, and 1 if a query can't be used; the other queries are answered
    nevertheless.
    """
    opened = open_store(store, untrusted=untrusted)
    writers: dict[str | None, Callable[[SearchResult], str]] = {"csv": _Csv(), "json": _json}
    write = writers.get(form, _shown)
    every, failed = _every(queries)
    if options["where"] is not None and len(every) > 1:
        opened.select(where=options["where"], allow_missing=True)  # a mistake in it is told once
    if draw is not None:
        make_folder(draw, opened.path)
    told: set[str] = set()  # a line that is the same for all queries is told once
    for number, name in enumerate(every, start=1):
        try:
            result = opened.search(name, **options)
        except MissingDependency:
            raise
        except FeatureStoreError as error:
            if len(every) == 1 and not failed:
                raise
            if str(error) not in told:
                _tell(error)
            told.add(str(error))
            failed = True
            continue
        if text := write(result):
            answer(text)
        if result.note is not None and result.note not in told:
            click.echo(f"note: {result.note}", err=True)
            told.add(result.note)
        if draw is not None:
            failed = not _draw(opened, result, draw, number) or failed
    if failed:
        click.get_current_context().exit(1)


def _draw(store: FeatureStore, result: SearchResult, folder: Path, number: int) -> bool:
    """Draw the query beside each image that is found or possible; a pair that can't be drawn is a line on stderr."""
    drawn = True
    for hit in result.hits:
        if hit.status is Verdict.CANDIDATE:
            continue
        try:
            picture = store.show_match(result.query, hit.filename, hit.match)
        except FeatureStoreError as error:  # the result is told already
            _tell(error)
            drawn = False
        else:
            picture.save(folder / f"{number:04d}-{_stem(result.query)}-{hit.rank}-{_stem(hit.filename)}.png")
    return drawn


def _stem(name: str) -> str:
    """Return the part of a picture's name that tells which file it shows."""
    shown = "".join(letter if letter.isprintable() else "_" for letter in Path(name).stem)
    return shown.encode()[:LONGEST_STEM].decode(errors="ignore")


def _every(queries: Sequence[str]) -> tuple[list[str], bool]:
    """Return all queries, those in folders too, and whether a folder can't be used."""
    every: list[str] = []
    failed = False
    for query in queries:
        try:
            every += _files(query)
        except FeatureStoreError as error:
            if len(queries) == 1:
                raise
            _tell(error)
            failed = True
    return every, failed


def _tell(error: FeatureStoreError) -> None:
    click.echo(f"error: {without_python(' '.join(str(error).split()))}", err=True)


def _files(query: str) -> Iterator[str]:
    """Yield a query, or the images in it if it is a folder, by name."""
    from featurestore.images import IMAGE_SUFFIXES
    from featurestore.system import is_folder, readable

    folder = Path(query)
    if not query or not is_folder(folder):  # Path("") is the current folder
        yield query
        return
    with readable(folder):
        found = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise QueryError(f"there are no image files in the folder {query}; name one that holds the queries")
    yield from found


def _shown(result: SearchResult) -> str:
    from featurestore.cli.text import table_text

    lines = [f"{shown(result.query)}: {_verdict(result)}"]
    if result.n_missing:
        lines.append(f"{counted(result.n_missing, 'image')} without codes left out; the next run makes them")
    rows = [(hit.rank, str(hit.status), hit.inliers, f"{hit.score:.1f}", hit.filename) for hit in result.hits]
    told = [v for v in (Verdict.POSSIBLE, Verdict.CANDIDATE) if any(hit.status is v for hit in result.hits)]
    legend = [f"{verdict}: {verdict.meaning}" for verdict in told]
    return "\n".join([*lines, table_text(("rank", "status", "inliers", "score", "filename"), rows), *legend])


def _verdict(result: SearchResult) -> str:
    seconds = result.seconds
    searching = seconds["search"] + seconds["check"]
    among = f"in {counted(result.n_images, 'image')}; {seconds['encode']:.1f} s to encode, {searching:.1f} s to search"
    if not result.found:
        return f"nothing in the store matches, {among}"
    return f"{counted(len(result.found), 'image')} found {among}"


def _json(result: SearchResult) -> str:
    return json.dumps(result.as_dict(), ensure_ascii=False, default=str)


class _Csv:
    """Hits as CSV, with a header before the first."""

    def __init__(self) -> None:
        """Begin with the header."""
        self.header: Sequence[str] | None = None

    def __call__(self, result: SearchResult) -> str:
        """Return the rows of one query."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for hit in result.hits:
            found = hit.match
            row = {
                "query": result.query,
                "rank": hit.rank,
                "status": str(hit.status),
                "inliers": hit.inliers,
                "score": round(hit.score, 4),
                "scale": None if found is None or found.transform is None else round(found.scale, 5),
                "degrees": None if found is None or found.transform is None else round(found.degrees, 3),
                "image_id": hit.image_id,
                "filename": hit.filename,
            }
            row |= {name: value for name, value in hit.columns.items() if name not in row}
            if self.header is None:
                self.header = list(row)
                writer.writerow(self.header)
            writer.writerow([row.get(name) for name in self.header])
        return text.getvalue().rstrip("\n")


@click.command(short_help="Add the stages of an index.")
@STORE
def index(store: Path) -> None:
    """Add the stages of an index to the recipe: fit_words learns words, and words assigns each code to one.

    From then on `run` keeps them up to date. Nothing that was computed before becomes stale.
    """
    added = open_store(store).index(quiet=False)
    what = f"added {' and '.join(added)} to the recipe" if added else "the recipe has the stages of an index already"
    click.echo(f"{what}; compute what is missing with: {command_line('run', store)}")


VERBS = (match, search, index)
