"""The verb tune: what the bytes of a store are worth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.common import STORE, answer, as_json, open_store, stoppable
from featurestore.cli.named import StoreVerb

if TYPE_CHECKING:
    from featurestore.api import FeatureStore
    from featurestore.apps import Proposal, Tuning

COLUMNS = ("", "setting", "image", "all", "recall@1", "95 %", "@5", "mAP", "found", "s")
SELECTS = ("norm", "scale", "response", "mix", "grid")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Size(click.ParamType[int]):
    """Bytes: ``2GB``, in powers of 1000."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]?B?)", str(value).strip().upper())
        unit = found and UNITS.get(found[2] if found[2].endswith("B") or not found[2] else f"{found[2]}B")
        if found is None or unit is None or float(found[1]) * unit < 1:
            self.fail(f"{value!r} is no size; write it like 2GB or 500MB", param, ctx)
        return int(float(found[1]) * unit)


class _Values(click.ParamType[tuple[Any, ...]]):
    """Values between commas."""

    name = "VALUES"

    def __init__(self, kind: Callable[[str], Any], allowed: tuple[str, ...] = ()) -> None:
        self._kind, self._allowed = kind, allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        for part in parts:
            if self._allowed and part not in self._allowed:
                self.fail(f"{part!r} is not one of {', '.join(self._allowed)}; separate values by commas", param, ctx)
            if self._kind is int and not re.fullmatch(r"\d{1,9}", part):
                self.fail(f"{part!r} is not a whole number; separate values by commas", param, ctx)
        return tuple(dict.fromkeys(self._kind(part) for part in parts))


@click.command(cls=StoreVerb, short_help="Measure what the bytes are worth, and propose a recipe.")
@STORE
@click.option("--budget", type=_Size(), help="Propose a recipe whose quantize and index take at most so much: 2GB.")
@click.option("--images", type=click.IntRange(1), metavar="N", help="Images of the collection; default: the store's.")
@click.option("--pairs", type=click.Path(path_type=Path), help="Queries and what they should find, as of evaluate.")
@click.option("--yes", is_flag=True, help="Write the proposal to featurestore.toml.")
@click.option("--top", "tops", type=_Values(int), default="200,450,900,1800", show_default=True, help="Descriptors.")
@click.option(
    "--select", "selects", type=_Values(str, SELECTS), default=",".join(SELECTS), show_default=True, help="Which."
)
@click.option("--dims", type=_Values(int), default=(), help="Axes of the PCA.  [default: all, and half]")
@click.option("--bits", type=_Values(int), default="8,4", show_default=True, help="Of a value.")
@click.option("--sample", default=100, show_default=True, type=click.IntRange(2), help="Images to try with.")
@click.option("--queries", default=150, show_default=True, type=click.IntRange(2), help="Parts of these to look for.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the sample and the parts.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Of trials.  [default: NAME-tune.jsonl]")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw shares by bytes too, into a .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Begin again, and replace an existing file.")
@click.option("--json", "json_wanted", is_flag=True, help="As JSON.")
def tune(
    store: Path,
    output: Path | None,
    budget: int | None,
    plot: Path | None,
    yes: bool,
    json_wanted: bool,
    **options: Any,
) -> None:
    """Try settings of the recipe on a sample of the store, and tell what each finds and how many bytes it takes.

    Queries are small degraded parts of the sample's images. Nothing of the store changes but with --yes. Trials are
    kept in OUTPUT, and after an interruption the same command goes on. The default grid has 80 settings and takes
    minutes; --top 450 --select mix, or a smaller --sample, take less.
    """
    from featurestore.apps import Grid, plot_tuning, propose, save_plot, tune, with_recipe

    if yes and budget is None:
        raise click.UsageError("--yes agrees to a proposal, which needs --budget")
    opened = open_store(store)
    names = {"tops": "tops", "selects": "selects", "dims": "dims", "bits": "bits", "sample": "images"}
    grid = Grid(**{name: options.pop(given) for given, name in names.items()}, **_taken(options, "queries", "seed"))
    target = output or Path(f"{opened.path.name}-tune.jsonl")
    picture = None if plot is None else _picture(plot, opened)
    with stoppable("the same command goes on where it was"):
        found = tune(opened, target, grid, quiet=False, say=lambda line: click.echo(line, err=True), **options)
    if picture is not None:
        save_plot(plot_tuning(found), picture)
    proposal = None if budget is None else propose(opened, found, budget)
    if proposal is not None and yes:
        proposal = with_recipe(opened, proposal)
    if json_wanted:
        answer(as_json({**found.as_dict(), "proposal": None if proposal is None else proposal.as_dict()}))
    else:
        answer("\n".join([_table(found), *([] if proposal is None else _told(proposal))]))


def _picture(path: Path, store: FeatureStore) -> Path:
    """Return where to draw. --force is about trials, which a picture is no reason to repeat."""
    from featurestore.apps import check_plot_file
    from featurestore.errors import OutputError

    target = check_plot_file(path, store, force=True)
    if target.exists():
        raise OutputError(f"{target} exists already; choose another name")
    return target


def _taken(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options.pop(name) for name in names}


def _table(found: Tuning) -> str:
    from featurestore.cli.table import find_screen
    from featurestore.cli.text import table_text
    from featurestore.formatting import human_bytes

    rows = []
    for trial in sorted(found.trials, key=lambda one: (one.bytes.image, -one.worth)):
        scores = trial.reported[-1]
        rows.append(
            (
                "*" if trial.front else "",
                str(trial.setting),
                human_bytes(trial.bytes.image),
                human_bytes(trial.bytes.collection),
                f"{scores.recall[1]:.3f}",
                "{:.2f}-{:.2f}".format(*scores.recall_interval),
                f"{scores.recall[5]:.3f}",
                f"{scores.mean_average_precision:.3f}",
                f"{scores.found:.3f}",
                f"{scores.seconds:.2f}",
            )
        )
    numbers = [name not in ("", "setting", "95 %") for name in COLUMNS]
    n = found.trials[0].reported[-1].n
    return "\n".join(
        [
            table_text(COLUMNS, rows, numbers=numbers, screen=find_screen()),
            f"{n:,} queries among {found.n_sampled:,} images; the others chose: * is better on them than all that is "
            f"smaller; all: quantize and index of {found.n_images:,} images",
        ]
    )


def _told(proposal: Proposal) -> list[str]:
    from featurestore.formatting import human_bytes

    size = human_bytes(proposal.trial.bytes.collection)
    lines = [f"within {human_bytes(proposal.budget)}: {proposal.trial.setting}, {size}"]
    for stage, values in proposal.changes.items():
        lines += [f"  [{stage}] {name} = {json.dumps(value)}" for name, value in values.items()]
    if not proposal.changes:
        return [*lines, "the recipe says so already"]
    stale = f"stale: {', '.join(proposal.stale)}; extract stays"
    return [*lines, f"written to featurestore.toml; {stale}" if proposal.written else f"--yes writes it; then {stale}"]


VERBS = (tune,)
