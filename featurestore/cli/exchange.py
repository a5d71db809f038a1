"""Exchange verbs of the command line: import-npz, import-colmap, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from featurestore.cli.common import STORE, UNTRUSTED, open_store
from featurestore.cli.named import StoreVerb, complete_stage
from featurestore.system import command_line, typed


@click.command("import-npz", short_help="Import the notebook's chunk files.")
@STORE
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--opencv", metavar="VERSION", help="The version of OpenCV that made the files, if that is known.")
@click.option("--quiet", is_flag=True, help="Show no bar and no summary.")
def import_npz(store: Path, folder: Path, opencv: str | None, quiet: bool) -> None:
    """Import descriptors from the notebook's chunk files, sift_chunk_*.npz in DIR.

    A chunk of the store is published when the files hold all of its images; a chunk that has its descriptors already is
    left alone. No code in the files is run. Images without descriptors in the notebook get the status unknown; to
    extract them: featurestore run STORE extract --retry-failed --status unknown.
    """
    opened = open_store(store)
    try:
        report = opened.import_npz(folder, opencv=opencv, quiet=quiet)
    except KeyboardInterrupt:
        go_on = command_line("import-npz", store, typed(folder))
        click.echo(f"stopped; published chunks are kept. To continue: {go_on}", err=True)
        raise
    if not quiet:
        from featurestore.cli.text import import_text

        click.echo(import_text(report))


@click.command("import-colmap", short_help="Import the features of a COLMAP database.")
@STORE
@click.argument("database", type=click.Path(path_type=Path), metavar="DB")
@click.option(
    "--normalization",
    type=click.Choice(["l1_root", "l2"]),
    help="Of its descriptors, which it does not say: l1_root (COLMAP's default) or l2. It is part of the variant.",
)
@click.option("--quiet", is_flag=True, help="Show no bar and no summary.")
def import_colmap(store: Path, database: Path, normalization: Any, quiet: bool) -> None:
    """Import keypoints and descriptors from a COLMAP database, as descriptors of the extractor colmap.

    A chunk of the store is published when DB has an entry for all of its images. Then featurestore run STORE computes
    the later stages. A store that has other descriptors is left as it is.
    """
    opened = open_store(store)
    try:
        report = opened.import_colmap(database, normalization=normalization, quiet=quiet)
    except KeyboardInterrupt:
        go_on = command_line("import-colmap", store, typed(database))
        click.echo(f"stopped; published chunks are kept. To continue: {go_on}", err=True)
        raise
    if not quiet:
        from featurestore.cli.text import import_text

        click.echo(import_text(report))


class _Format(click.ParamType[str]):
    """A format, of those that are built in or installed."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        from featurestore.exchange import EXPORTERS

        return f"[{'|'.join(EXPORTERS.names())}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from featurestore.exchange import EXPORTERS

        return [CompletionItem(name) for name in EXPORTERS.names() if name.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from featurestore.exchange import EXPORTERS

        if value not in EXPORTERS.names():
            self.fail(f"{value!r} is not one of {', '.join(map(repr, EXPORTERS.names()))}.", param, ctx)
        return str(value)


EXPORT_HELP = """Write descriptors or models to OUT in the format of another program.

\b
npz           the notebook's final file: descriptors_list and filenames
npy           a folder of codes.npy, offsets.npy and images.parquet, for memory mapping
parquet       one row per image, or with --flat one row per descriptor
arrow         one row per image in an Arrow IPC file, for memory mapping
colmap        a COLMAP database of RootSIFT (or --plain SIFT) and keypoints, of the stage extract
hloc          an HDF5 file of features for hloc, of the stage extract
fvecs, bvecs  vectors for nearest-neighbour benchmarks, as float32 or bytes
model         an npz of mean, components, low and high
joblib        the fitted IncrementalPCA as a pickle, like the notebook's

OUT appears when it is complete. Writing it takes little memory."""


@click.command(cls=StoreVerb, help=EXPORT_HELP, short_help="Write descriptors or models for other programs.")
@STORE
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=_Format(), required=True, help="What is written.")
@click.option(
    "--stage",
    shell_complete=complete_stage,
    help="Such as extract or project.  [default: that of the codes; of colmap and hloc: extract]",
)
@click.option("--where", metavar="SQL", help="Only these images: SQL over the columns of the view images.")
@click.option("--variant", help="Another variant than the current recipe's; a prefix of its name is enough.")
@click.option("--allow-missing", is_flag=True, help="Write the finished images, although others lack the stage.")
@click.option("--flat", is_flag=True, help="With parquet: one row per descriptor.")
@click.option("--plain", is_flag=True, help="With colmap: SIFT as it is, and not RootSIFT.")
@click.option("--single-camera", is_flag=True, help="With colmap: all images were taken by one camera.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace OUT if it exists, and write an npz even if this machine lacks the memory to read it.",
)
@click.option("--quiet", is_flag=True, help="Show no bar and no summary.")
@UNTRUSTED
def export(
    store: Path, out: Path, format_: str, flat: bool, plain: bool, single_camera: bool, untrusted: bool, **choice: Any
) -> None:
    """Write descriptors or models to OUT."""
    if flat and format_ not in ("parquet", "parquet-flat"):
        raise click.UsageError("--flat goes with --format parquet")
    options = {name: True for name, given in {"plain": plain, "single_camera": single_camera}.items() if given}
    opened = open_store(store, untrusted=untrusted)
    opened.export(out, "parquet-flat" if flat else format_, options=options, **choice)


VERBS = (import_npz, import_colmap, export)
"""Added to the command line by `featurestore.cli`."""
