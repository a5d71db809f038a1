"""Searching verbs of the command line: match."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.common import STORE, UNTRUSTED, answer, as_json, open_store
from featurestore.matching import MIN_INLIERS, Verdict

if TYPE_CHECKING:
    from featurestore.matching import PairMatch

MIN = click.option(
    "--min-inliers",
    default=MIN_INLIERS,
    show_default=True,
    type=click.IntRange(min=1),
    help="The least inliers of a found image.",
)


@click.command(short_help="Match two images.")
@STORE
@click.argument("query")
@click.argument("image")
@MIN
@click.option("--json", "json_wanted", is_flag=True, help="As JSON, with the transform, the outline and all inliers.")
@UNTRUSTED
def match(store: Path, query: str, image: str, min_inliers: int, json_wanted: bool, untrusted: bool) -> None:
    """Tell whether QUERY shows a part of IMAGE.

    Both are names of images in the store, or files outside of it, which are encoded with the store's models. The exit
    code is 0 whether they match or not.
    """
    found = open_store(store, untrusted=untrusted).match(query, image, min_inliers=min_inliers)
    answer(as_json({"query": query, "image": image, **found.as_dict()}) if json_wanted else _text(found))


def _text(found: PairMatch) -> str:
    head = {
        Verdict.FOUND: "found",
        Verdict.POSSIBLE: "possible: look at it",
        Verdict.CANDIDATE: "no match",
    }[found.status]
    lines = [f"{head}; {_counts(found)}"]
    if found.status is not Verdict.CANDIDATE and found.outline is not None:
        places = " ".join(f"({x:.0f}, {y:.0f})" for x, y in found.outline.tolist())
        lines.append(f"scale {found.scale:.3f}, turned by {found.degrees:.1f} degrees; the query's corners: {places}")
    return "\n".join(lines)


def _counts(found: PairMatch) -> str:
    border = f", and {found.on_border:,} on the borders of both that do not count" if found.on_border else ""
    return f"{found.inliers:,} of {found.n_matches:,} matches agree{border}"


VERBS = (match,)
