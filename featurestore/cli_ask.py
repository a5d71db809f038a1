"""The verbs of the command line that ask and load."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from featurestore.cli_shared import STORE, as_json, open_store


@click.command()
@STORE
@click.argument("query")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.option("--json", "form", flag_value="json", help="As JSON: a list of objects.")
def sql(store: Path, query: str, form: str | None) -> None:
    """Answer a question in SQL over the views images, descriptor_counts, failures, partitions, and others."""
    result = open_store(store).sql(query)
    if form == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([result.columns, *result.fetchall()])
    elif form == "json":
        click.echo(as_json(result.arrow().to_pylist()))
    else:
        from featurestore.text import table_text

        click.echo(table_text(result.columns, result.fetchall()))


VERBS = (sql,)
