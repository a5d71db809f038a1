"""Verbs that join others: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.common import STORE, UNTRUSTED, answer, as_json, open_store
from featurestore.formatting import counted

if TYPE_CHECKING:
    from featurestore.apps import Evaluation

COLUMNS = ("class", "queries", "recall@1", "95 %", "recall@5", "recall@100", "mAP", "found", "wrong", "s")


@click.command(short_help="Measure how good searches are.")
@STORE
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--class", "kind", help="The column with the class of each query; class if there is one.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "exact", "index"]),
    help="As of search.",
)
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
            f"{one.recall[1]:.3f}",
            "{:.3f}-{:.3f}".format(*one.recall_interval),
            f"{one.recall[5]:.3f}",
            f"{one.recall[100]:.3f}",
            f"{one.mean_average_precision:.3f}",
            f"{one.found:.3f}",
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


VERBS = (evaluate,)
