"""Reading verbs of the command line: info, show."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.common import FORCE, OUTPUT, STORE, UNTRUSTED, answer, as_json, open_store, refuse_picture
from featurestore.cli.named import StoreVerb, complete_image, complete_stage
from featurestore.system import shown


@click.command(cls=StoreVerb, short_help="Show everything about one image.")
@STORE
@click.argument("filename", shell_complete=complete_image)
@click.option("--json", "json_wanted", is_flag=True, help="As JSON.")
@UNTRUSTED
def info(store: Path, filename: str, json_wanted: bool, untrusted: bool) -> None:
    """Show everything about one image: its row of the CSV, the result of each stage, the models it trained."""
    found = open_store(store, untrusted=untrusted).info(filename)
    if json_wanted:
        answer(as_json(found.as_dict()))
    else:
        from featurestore.cli.table import find_screen
        from featurestore.cli.text import info_text

        answer(info_text(found, find_screen()))


@click.command(cls=StoreVerb, short_help="Draw an image with its keypoints.")
@STORE
@click.argument("filename", shell_complete=complete_image)
@click.option(
    "--stage",
    shell_complete=complete_stage,
    help="Whose keypoints; default: those of the codes, over all that extract found.",
)
@OUTPUT
@FORCE
@UNTRUSTED
def show(store: Path, filename: str, stage: str | None, output: Path | None, force: bool, untrusted: bool) -> None:
    """Draw an image of the store with its keypoints: place, size and angle.

    Without -o the picture is NAME-keypoints.png in the current folder, where NAME is that of the image.
    """
    opened = open_store(store, untrusted=untrusted)
    output = output or Path(f"{Path(filename).stem}-keypoints.png")
    refuse_picture(output, opened.path, force=force)
    picture = opened.show(filename, stage)
    picture.save(output, force=force)
    answer(f"{output}: {shown(picture.title)}")


VERBS = (info, show)
