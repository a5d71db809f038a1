"""Maintenance verbs of the command line: verify, rebuild, merge, move, prune, cluster-check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featurestore.cli.common import (
    JSON,
    SCHEDULER,
    STORE,
    UNTRUSTED,
    answer,
    as_json,
    engine_options,
    open_store,
    stoppable,
)
from featurestore.cli.named import StoreVerb

ENGINE = engine_options(workers="Processes that read files. [default: every core, if there is much to read]")


@click.command(cls=StoreVerb, short_help="Compare files, catalog and images.")
@STORE
@click.option("--deep", is_flag=True, help="Decode every value, and read the image files too.")
@click.option("--repair", is_flag=True, help="Drop damaged files and records, so that a run recomputes only these.")
@ENGINE
@JSON
@UNTRUSTED
def verify(store: Path, json_wanted: bool, untrusted: bool, **options: Any) -> None:
    """Compare every file with the catalog, and the images with the extracted ones. Exits with 1 on a problem."""
    from featurestore.cli.text import verify_text

    with stoppable("finished repairs are kept"):
        opened = open_store(store, untrusted=untrusted)
        report = opened.verify(**options, quiet=json_wanted)
    answer(as_json(report.as_dict()) if json_wanted else verify_text(report, opened.path))
    if not report.ok:
        click.get_current_context().exit(1)


@click.command(short_help="Make a lost catalog again.")
@STORE
@ENGINE
def rebuild(store: Path, **options: Any) -> None:
    """Make a lost or damaged catalog again from the store's other files."""
    from featurestore.cli.text import rebuild_text

    with stoppable("the old catalog is unchanged"):
        report = open_store(store).rebuild(**options, quiet=False)
    click.echo(rebuild_text(report))


@click.command(short_help="Copy the work of other stores.")
@STORE
@click.argument("others", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="OTHER...")
@ENGINE
@JSON
def merge(store: Path, others: tuple[Path, ...], json_wanted: bool, **options: Any) -> None:
    """Copy partitions and models from stores of the same dataset and recipe, made on other machines."""
    from featurestore.cli.text import merge_text

    with stoppable("copied partitions and models are kept. To continue, merge again"):
        reports = open_store(store).merge(*others, **options, quiet=False)
    if json_wanted:
        answer(as_json([report.as_dict() for report in reports]))
        return
    for report in reports:
        click.echo(merge_text(report))


@click.command(short_help="Move the partitions to another place.")
@STORE
@click.option("--partitions", metavar="ADDRESS", help="s3://bucket/prefix, which no other store may have.")
@click.option("--into-folder", is_flag=True, help="Move them into the folder STORE.")
@JSON
def move(store: Path, partitions: str | None, into_folder: bool, json_wanted: bool) -> None:
    """Copy the partitions into an object store or back, compare them, and delete them where they were."""
    from featurestore.cli.text import move_text

    if bool(partitions) == into_folder:
        raise click.UsageError("say where to: --partitions ADDRESS, or --into-folder")
    with stoppable("what was copied is kept. To continue, move again"):
        report = open_store(store).move(partitions or "", quiet=False)
    click.echo(as_json(report.as_dict()) if json_wanted else move_text(report))


@click.command(short_help="Delete files that are no longer needed.")
@STORE
@click.option("--keep", multiple=True, metavar="STAGE", help="Also prune the inputs of STAGE's partitions.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted, and the cost to recompute it.")
@JSON
def prune(store: Path, keep: tuple[str, ...], dry_run: bool, json_wanted: bool) -> None:
    """Delete old variants, files without a record and, with --keep, partitions upstream of finished chunks."""
    from featurestore.cli.table import find_screen
    from featurestore.cli.text import prune_text

    with stoppable("deleted files are recorded. To continue, prune again"):
        report = open_store(store).prune(keep, dry_run=dry_run, quiet=False)
    if json_wanted:
        answer(as_json(report.as_dict()))
    else:
        (answer if dry_run else click.echo)(prune_text(report, dry_run=dry_run, screen=find_screen()))


@click.command("cluster-check", short_help="Check the workers of a Dask cluster.")
@STORE
@SCHEDULER
def cluster_check(store: Path, scheduler: str | None) -> None:
    """Check what the workers of a Dask cluster see, and how long extract would take on them. It changes nothing."""
    from featurestore.cli.text import cluster_text

    answer(cluster_text(open_store(store).check_cluster(scheduler)))


VERBS = (verify, rebuild, merge, move, prune, cluster_check)
