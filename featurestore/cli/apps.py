"""Verbs that join others: evaluate, pairs, report, view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.common import STORE, UNTRUSTED, answer, as_json, open_store, stoppable, without_python
from featurestore.cli.named import StoreVerb
from featurestore.formatting import counted
from featurestore.matching import MIN_INLIERS

if TYPE_CHECKING:
    from featurestore.apps import Evaluation, Pairs, Scores

METHOD = click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "exact", "index"]),
    help="As of search.",
)
COLUMNS = ("class", "queries", "negative", "recall@1", "95 %", "recall@5", "recall@100", "mAP", "found", "wrong", "s")


@click.command(cls=StoreVerb, short_help="Measure how good searches are.")
@STORE
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--class", "kind", help="The column with the class of each query; class if there is one.")
@METHOD
@click.option("--json", "json_wanted", is_flag=True, help="As JSON, with the outcome of each query.")
@UNTRUSTED
def evaluate(store: Path, pairs: Path, json_wanted: bool, untrusted: bool, **options: Any) -> None:
    """Search for the queries of PAIRS, a CSV with the columns query and ref, and tell how many find their ref.

    A query is the name of an image in the store, or a file. A row without a ref is a query that nothing should be found
    for. A query that can't be used is one line on stderr, and counts as not found.
    """
    from featurestore.apps import evaluate

    found = evaluate(
        open_store(store, untrusted=untrusted),
        pairs,
        say=lambda line: click.echo(f"error: {line}", err=True),
        **options,
    )
    answer(as_json(found.as_dict()) if json_wanted else _text(found))


def _text(found: Evaluation) -> str:
    from featurestore.cli.text import table_text

    rows = [
        (
            one.kind,
            one.n + one.n_negative,
            one.n_negative,
            *(_shares(one) if one.n else ["-"] * 6),
            one.n_wrong,
            f"{one.seconds:.2f}",
        )
        for one in found.scores
    ]
    lines = [table_text(COLUMNS, rows)]
    if found.absent:
        absent = counted(len(found.absent), "row")
        lines.append(f"{absent} left out, whose ref is not one image of the store, such as {found.absent[0]!r}")
    return "\n".join(lines)


def _shares(one: Scores) -> list[str]:
    interval = "{:.3f}-{:.3f}".format(*one.recall_interval)
    others = [one.recall[5], one.recall[100], one.mean_average_precision, one.found]
    return [f"{one.recall[1]:.3f}", interval, *(f"{share:.3f}" for share in others)]


@click.command(cls=StoreVerb, short_help="Search for every image among the others.")
@STORE
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--top", default=20, show_default=True, type=click.IntRange(min=1), help="Hits of each image.")
@click.option(
    "--format",
    "form",
    default="csv",
    show_default=True,
    type=click.Choice(["csv", "txt"]),
    help="csv: a row for each hit; txt: a line 'query ref' for each pair that is found, for hloc and COLMAP.",
)
@click.option(
    "--min-inliers",
    default=MIN_INLIERS,
    show_default=True,
    type=click.IntRange(min=1),
    help="The least inliers of a found image.",
)
@METHOD
@click.option("--force", is_flag=True, help="Begin again, and replace an existing file.")
@UNTRUSTED
def pairs(store: Path, output: Path, untrusted: bool, **options: Any) -> None:
    """Search for every image of the store among the others, and write the hits to OUTPUT.

    OUTPUT grows query by query. After an interruption the same command goes on; OUTPUT.progress knows how far it is.
    In the end the view duplicates has the pairs that were found: featurestore sql STORE "FROM duplicates".
    """
    from featurestore.apps import pairs

    opened = open_store(store, untrusted=untrusted)
    with stoppable("the same command goes on where it was"):
        found = pairs(opened, output, quiet=False, **options)
    answer(_told(found))


def _told(found: Pairs) -> str:
    lines = [f"{found.path}: {counted(found.n_found, 'pair')} found among {counted(found.n_queries, 'image')}"]
    if found.n_rows is not None and found.n_rows > found.n_found:
        lines[0] += f", in {counted(found.n_rows, 'row')}: the others are possible, or candidates that do not match"
    if found.n_before == found.n_queries:
        lines[0] += "; it was complete already"
    elif found.n_before:
        lines[0] += f", {found.n_before:,} of which were searched for before"
    if found.n_missing:
        lines.append(f"{counted(found.n_missing, 'image')} without codes left out; the next run makes them")
    if found.not_kept is not None:
        lines.append(f"the view duplicates does not show these pairs: {without_python(found.not_kept)}")
    return "\n".join(lines)


@click.command(cls=StoreVerb, short_help="Write a report for colleagues: one HTML file.")
@STORE
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--images", default=1000, show_default=True, type=click.IntRange(min=0), metavar="N", help="Images to show small."
)
@click.option(
    "--gallery",
    default=12,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Images with the most, and with the fewest descriptors, to show.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@UNTRUSTED
def report(store: Path, output: Path, untrusted: bool, **options: Any) -> None:
    """Write a report of the store to OUTPUT, one HTML file that needs no network.

    It has the collection, the stages and their models, runs, charts, failures, and the SQL behind each number.
    """
    from featurestore.apps import report
    from featurestore.formatting import human_bytes

    path = report(open_store(store, untrusted=untrusted), output, quiet=False, **options)
    answer(f"{path}: {human_bytes(path.stat().st_size)}")


@click.command(cls=StoreVerb, short_help="Look at the store in a browser.")
@STORE
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="Of 127.0.0.1; 0 takes a free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@UNTRUSTED
def view(store: Path, port: int, no_browser: bool, untrusted: bool) -> None:
    """Show the store in a browser of this machine, until Ctrl-C: its report, its images, and a run at work.

    Needs starlette and uvicorn: pip install 'featurestore[view]'. The address has a token in it, without which no
    program on this machine gets an answer. The store is not changed.
    """
    from featurestore.apps import view

    opened = open_store(store, untrusted=untrusted)
    try:
        view(opened, say=lambda address: answer(f"{address}\nCtrl-C ends it"), port=port, browser=not no_browser)
    except KeyboardInterrupt:
        click.echo()


VERBS = (evaluate, pairs, report, view)
