"""The verb plot: numbers of a store as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from featurestore.cli.common import FORCE, STORE, UNTRUSTED, answer, open_store
from featurestore.cli.named import StoreVerb, complete_stage

if TYPE_CHECKING:
    from featurestore.apps import PlotKind


HELP = """Plot numbers of the store. Needs matplotlib: pip install 'featurestore[plot]'.

\b
counts    images by their number of descriptors; --by COLUMN: their quantiles for each value of a column
spectrum  the share of the variance that each component of the PCA explains
bounds    the share of values that are clipped, by dimension, in a sample of images
progress  images done over time, by stage"""


@click.command(cls=StoreVerb, help=HELP, short_help="Plot counts, the spectrum, bounds or progress.")
@STORE
@click.argument("kind", type=click.Choice(["counts", "spectrum", "bounds", "progress"]))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A .png, .svg or .pdf.  [default: KIND.png]")
@click.option("--by", metavar="COLUMN", help="With counts: a column of the dataset, whose values are compared.")
@click.option("--stage", default="extract", show_default=True, shell_complete=complete_stage, help="With counts.")
@FORCE
@UNTRUSTED
def plot(store: Path, kind: str, output: Path | None, by: str | None, stage: str, force: bool, untrusted: bool) -> None:
    """Plot numbers of the store."""
    from featurestore.apps import check_plot_file, plot, save_plot

    opened = open_store(store, untrusted=untrusted)
    target = check_plot_file(output or Path(f"{kind}.png"), opened, force=force)
    save_plot(plot(opened, cast("PlotKind", kind), by=by, stage=stage), target)
    answer(f"{output or target.name}: {kind}")


VERBS = (plot,)
