"""The verbs of the command line that take in and hand out the files of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli_shared import STORE, open_store


@click.command("import-npz")
@STORE
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--quiet", is_flag=True, help="Show no bar and no summary.")
def import_npz(store: Path, folder: Path, quiet: bool) -> None:
    """Take over descriptors from the notebook's chunk files, sift_chunk_*.npz in DIR.

    A chunk of the store is published when the files hold all of its images; one that has its descriptors already is
    left alone. Nothing in the files is run. The images that the notebook kept nothing of get the status unknown; to
    look at them again: featurestore run STORE extract --retry-failed --status unknown.
    """
    opened = open_store(store)
    try:
        report = opened.import_npz(folder, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(f"stopped; what was published is kept. To go on: featurestore import-npz {store} {folder}", err=True)
        raise
    if not quiet:
        from featurestore.text import import_text

        click.echo(import_text(report))


VERBS = (import_npz,)
"""Added to the command line by `featurestore.cli`."""
