"""The verbs of the command line that look after a store."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.common import STORE, UNTRUSTED, answer, as_json, open_store, stoppable


@click.command(short_help="Compare files, catalog and images.")
@STORE
@click.option("--deep", is_flag=True, help="Decode every value, and read the image files too.")
@click.option("--repair", is_flag=True, help="Drop what is bad, so that a run makes just that anew.")
@click.option("--json", "json_wanted", is_flag=True, help="As JSON.")
@UNTRUSTED
def verify(store: Path, deep: bool, repair: bool, json_wanted: bool, untrusted: bool) -> None:
    """Compare every file with the catalog, and the images with what was extracted. Exits 1 if something is wrong."""
    from featurestore.cli.text import verify_text

    with stoppable("whatever was repaired stays repaired"):
        opened = open_store(store, untrusted=untrusted)
        report = opened.verify(deep=deep, repair=repair, quiet=json_wanted)
    answer(as_json(report.as_dict()) if json_wanted else verify_text(report, opened.path))
    if not report.ok:
        click.get_current_context().exit(1)


@click.command(short_help="Make a lost catalog anew.")
@STORE
def rebuild(store: Path) -> None:
    """Make a lost or damaged catalog anew from the store's other files."""
    from featurestore.cli.text import rebuild_text

    with stoppable("the old catalog is where it was"):
        report = open_store(store).rebuild(quiet=False)
    click.echo(rebuild_text(report))


@click.command(short_help="Take over other machines' work.")
@STORE
@click.argument("others", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="OTHER...")
def merge(store: Path, others: tuple[Path, ...]) -> None:
    """Take over what other machines have made: partitions and models of stores of the same dataset and recipe."""
    from featurestore.cli.text import merge_text

    with stoppable("whatever was taken over is kept. To go on, merge again"):
        reports = open_store(store).merge(*others, quiet=False)
    for report in reports:
        click.echo(merge_text(report))


@click.command(short_help="Delete what is not needed any more.")
@STORE
@click.option("--keep", multiple=True, metavar="STAGE", help="Prune what the partitions of STAGE were made from.")
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what it would cost to have it back.")
def prune(store: Path, keep: tuple[str, ...], dry_run: bool) -> None:
    """Delete old variants, files without a record and, with --keep, what is upstream of finished chunks."""
    from featurestore.cli.text import prune_text

    with stoppable("whatever was pruned is recorded. To go on, prune again"):
        report = open_store(store).prune(keep, dry_run=dry_run, quiet=False)
    (answer if dry_run else click.echo)(prune_text(report, dry_run=dry_run))


VERBS = (verify, rebuild, merge, prune)
