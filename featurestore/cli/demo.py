"""The demo: the whole job on sample images, with the commands that a user would type."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from featurestore.api import FeatureStore
from featurestore.cli.samples import make_detail, make_samples
from featurestore.cli.text import ingest_text, status_text, table_text
from featurestore.errors import StoreExists
from featurestore.formatting import human_seconds
from featurestore.system import command_line, typed

DETAIL = "detail.jpg"
WHOLE = "china/whole-000.jpg"  # of which it is a part
QUESTIONS = (
    (
        "How many descriptors did each photograph give, and how many were kept?",
        """SELECT photo, stage, count(*) AS images, sum(n_descriptors) AS descriptors
FROM descriptor_counts JOIN images USING (image_id)
WHERE stage IN ('extract', 'quantize') AND photo IS NOT NULL
GROUP BY ALL ORDER BY ALL""",
    ),
    ("Which images could not be used, and why?", "SELECT filename, status, error FROM failures"),
    (
        "What did the PCA learn from?",
        """SELECT stage, n_images, summary ->> 'explained_variance_ratio' AS explained
FROM models WHERE stage = 'fit_pca' AND current""",
    ),
)


def run_demo(folder: Path) -> None:
    """Make sample images and a store below ``folder``, run all stages, and show some queries.

    Raises:
        StoreExists: the folder holds files that the demo did not make.
    """
    store_path = folder / "store"
    _clear(folder, store_path)
    click.echo(
        f"24 crops and rotations of two photographs, one blank image and one broken file, in {folder / 'images'}"
    )
    dataset = make_samples(folder / "images")
    _show(
        command_line(
            "init", store_path, f"--images {typed(folder / 'images')} --dataset {typed(dataset)} --chunk-size 8"
        )
    )
    store = FeatureStore.create(store_path, images=folder / "images", dataset=dataset, chunk_size=8)
    if store.ingested is not None:
        click.echo(ingest_text(store.ingested))
    _show(command_line("run", store_path))
    done = store.run(quiet=False)
    click.echo(f"done in {human_seconds(sum(stage.seconds for stage in done))}")
    _show(command_line("status", store_path))
    click.echo(status_text(store.status()))
    for question, query in QUESTIONS:
        click.echo(f"\n{question}")
        _show(command_line("sql", store_path, f'"{query}"'))
        result = store.sql(query)
        click.echo(table_text(result.columns, result.fetchall()))
    click.echo(_what_next(store_path, make_detail(folder / "images" / DETAIL)))


def _what_next(store: Path, detail: Path) -> str:
    """Return the commands that work next, as they are typed in this shell."""
    program, activation = _program()
    begin = f"    {program} "
    return "\n".join(
        [
            f"\nNext, with this store ({detail} is a part of one of the images; Ctrl-C ends view):",
            *([f"    {activation}"] if activation else []),
            f"{begin}search {typed(store)} {typed(detail)}",
            f"{begin}match {typed(store)} {typed(detail)} {WHOLE} -o pair.png --force",
            f"{begin}show {typed(store)} {WHOLE} -o keypoints.png --force",
            f'{begin}sql {typed(store)} "SHOW TABLES"',
            f"{begin}plot {typed(store)} counts --by photo -o counts.png --force",
            f"{begin}report {typed(store)} report.html --force",
            f"{begin}view {typed(store)}",
            *_lacking(),
            "\nWith your own images:",
            f"{begin}init STORE --images DIR --dataset dataset.csv    # the CSV has columns filename and subset",
            f"{begin}run STORE    # interrupted? run it again",
            f"{begin}status STORE",
        ]
    )


def _lacking() -> list[str]:
    """Return a line about the extras that the commands need and that are not installed."""
    needed = {"plot": ["matplotlib"], "view": ["starlette", "uvicorn"]}
    extras = ",".join(name for name, modules in needed.items() if not all(map(find_spec, modules)))
    return [f"{extras.replace(',', ' and ')} first: pip install 'featurestore[{extras}]'"] if extras else []


def _program() -> tuple[str, str]:
    """Return what to type for the program, and the line that first puts it on the path, or nothing."""
    beside = Path(sys.executable).parent
    found = shutil.which("featurestore")
    if found is not None and Path(found).parent == beside:
        return "featurestore", ""
    activate = beside / "activate"
    if activate.is_file():
        here = Path.cwd()
        return "featurestore", f". {typed(activate.relative_to(here) if activate.is_relative_to(here) else activate)}"
    return f"{typed(sys.executable)} -m featurestore", ""


def _show(command: str) -> None:
    click.echo(f"\n$ {command}")


def _clear(folder: Path, store: Path) -> None:
    """Remove the files of an earlier demo, and no others."""
    if not folder.exists():
        return
    ours = {"images", "store"}
    strange = [path.name for path in folder.iterdir() if path.name not in ours and not path.name.startswith(".tmp-")]
    if not folder.is_dir() or strange:
        raise StoreExists(
            f"{folder} holds {strange[0]}, which is not of a demo; choose another folder: featurestore demo DIR"
        )
    for path in folder.iterdir():
        shutil.rmtree(path)
