"""Plots of a store: descriptors of images, the PCA's spectrum, clipped values, and images done over time.

matplotlib draws them; it is an extra, and imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from featurestore.api import FeatureStore
from featurestore.errors import MissingDependency, NotReady, OutputError, QueryError
from featurestore.system import StrPath, located, output_at, refuse_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PlotKind = Literal["counts", "spectrum", "bounds", "progress"]
KINDS: tuple[PlotKind, ...] = get_args(PlotKind)
SUFFIXES = (".png", ".svg", ".pdf")
INCHES = (8.0, 4.5)
MOST_GROUPS = 20  # values of a column, the most frequent ones
MOST_IMAGES = 200  # of which every value is compared with the bounds

_COUNTS = "SELECT n_descriptors FROM descriptor_counts WHERE stage = $stage"
_GROUPS = """
SELECT CAST({column} AS VARCHAR) AS name, count(*) AS n,
       quantile_cont(n_descriptors, [0.05, 0.25, 0.5, 0.75, 0.95]) AS quantiles
FROM descriptor_counts JOIN images USING (image_id) WHERE stage = $stage GROUP BY 1 ORDER BY n DESC, name LIMIT $most"""
_PROJECTED = """
SELECT (SELECT count(*) FROM images), count(*) FILTER (NOT pruned), count(*) FILTER (pruned)
FROM partitions WHERE stage = 'project' AND current"""
_RUNS = """
SELECT stage, epoch(started) AS begun, epoch(coalesce(ended, started)) AS ended, n_images
FROM runs WHERE n_images > 0 ORDER BY started"""


def plot(
    store: FeatureStore, kind: PlotKind, *, by: str | None = None, stage: str = "extract", ax: Axes | None = None
) -> Axes:
    """Draw a plot of a store, and return its axes.

    Args:
        store: the store.
        kind: ``counts``: images by their number of descriptors; ``spectrum``: the variance that each component of
            the PCA explains; ``bounds``: the share of values that are clipped, by dimension, in a sample of images;
            ``progress``: images done over time, by stage.
        by: with ``counts``, a column of the dataset: the quantiles of each of its values.
        stage: with ``counts``, whose descriptors.
        ax: matplotlib's axes to draw on; None makes a figure.

    Raises:
        MissingDependency: matplotlib is not installed.
        NotReady: the stage has not been run, there is no such model, or its input has been pruned.
        QueryError: there is no such plot or column.
    """
    if kind not in KINDS:
        raise QueryError(f"there is no plot {kind!r}; the plots are {', '.join(KINDS)}")
    if by is not None and kind != "counts":
        raise QueryError(f"only counts are drawn by a column, and this is {kind}; leave it out")
    drawn = new_figure().add_subplot() if ax is None else ax
    if kind == "counts":
        _draw_counts(store, drawn, by, stage)
    else:
        draw: dict[str, Callable[[FeatureStore, Axes], None]] = {
            "spectrum": _draw_spectrum,
            "bounds": _draw_bounds,
            "progress": _draw_progress,
        }
        draw[kind](store, drawn)
    return drawn


def check_plot_file(path: StrPath, store: FeatureStore, *, force: bool = False) -> Path:
    """Return where a plot can be written, before it is drawn.

    Raises:
        OutputError: its name has another suffix than png, svg or pdf, it exists, or lies in the store.
    """
    target = located(path, "a plot")
    if target.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{target.name} ends in none of {', '.join(SUFFIXES)}, which determine the format; name it so"
        )
    refuse_output(target, store.path, force=force)
    return target


def save_plot(axes: Axes, target: Path) -> None:
    """Write the figure of a plot to a file, whose suffix chooses the format.

    Raises:
        OutputError: it can't be written.
        NotEnoughSpace: the disk is full.
    """
    figure: Any = axes.figure
    with output_at(target) as temporary:
        figure.savefig(temporary, format=target.suffix.lower().removeprefix("."), dpi=150, bbox_inches="tight")


def new_figure(width: float = INCHES[0]) -> Figure:
    """Return an empty figure of matplotlib.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, and no global state
    except ImportError as error:
        raise MissingDependency("matplotlib is not installed; pip install 'featurestore[plot]'") from error
    return Figure(figsize=(width, INCHES[1]), layout="constrained")


def _draw_counts(store: FeatureStore, ax: Axes, by: str | None, stage: str) -> None:
    if by is not None:
        _draw_groups(store, ax, by, stage)
    else:
        counts = store.sql(_COUNTS, stage=stage).arrow()["n_descriptors"].to_numpy()
        _refuse_none(len(counts), stage)
        ax.hist(counts, bins=min(50, max(10, len(set(counts.tolist())))))
        ax.set_ylabel("images")
    ax.set_xlabel(f"descriptors of {stage}")


def _draw_groups(store: FeatureStore, ax: Axes, by: str, stage: str) -> None:
    columns = {str(row[0]).lower(): str(row[0]) for row in store.sql("DESCRIBE images")}
    if by.lower() not in columns:
        raise QueryError(f"images has no column {by!r}; its columns are {', '.join(columns.values())}")
    name = columns[by.lower()].replace('"', '""')
    groups = store.sql(_GROUPS.replace("{column}", f'images."{name}"'), stage=stage, most=MOST_GROUPS)
    rows = groups.fetchall()[::-1]  # the most frequent one on top
    _refuse_none(len(rows), stage)
    boxes = [
        {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []}
        for _, _, (low, q1, median, q3, high) in rows
    ]
    ax.bxp(boxes, orientation="horizontal", showfliers=False)
    labels = [f"{'(none)' if value is None else _printable(value)} ({n:,})" for value, n, _ in rows]
    ax.set_yticks(range(1, len(rows) + 1), labels, parse_math=False)  # a $ in a cell is no formula
    ax.set_title("from the 5 % to the 95 % quantile; the box is the middle half", fontsize="small")


def _draw_spectrum(store: FeatureStore, ax: Axes) -> None:
    model = store.model("fit_pca")
    total = model["var_"].sum() * float(model["n_samples_seen_"])
    shares = model["singular_values_"] ** 2 / total
    components = np.arange(1, len(shares) + 1)
    ax.bar(components, shares, label="each component")
    ax.plot(components, np.cumsum(shares), color="tab:orange", label="together")
    ax.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1))
    ax.legend()


def _draw_bounds(store: FeatureStore, ax: Axes) -> None:
    model = store.model("fit_scale")
    ((n_images, n_kept, n_pruned),) = store.sql(_PROJECTED)
    if n_pruned and not n_kept:
        raise NotReady(
            f"project is pruned in {store.path}, and its values are compared with the bounds; run project again"
        )
    step = -(-n_images // MOST_IMAGES)
    values, _, image_ids = store.select(stage="project", where=f"image_id % {step} = 0", allow_missing=True).matrix()
    outside = (values < model["low"]) | (values > model["high"])
    shares = outside.mean(axis=0) if len(values) else np.zeros(len(model["low"]))
    ax.bar(np.arange(len(shares)), 100 * shares)
    ax.set(xlabel="dimension", ylabel="clipped values, %")
    ax.set_title(f"{len(values):,} descriptors of {len(image_ids):,} images", fontsize="small")


def _draw_progress(store: FeatureStore, ax: Axes) -> None:
    rows = store.sql(_RUNS).fetchall()
    if not rows:
        raise NotReady(f"nothing has been run in {store.path} yet; run it first")
    first, last = min(row[1] for row in rows), max(row[2] for row in rows)
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if last - first > 2 * s or s == 1)
    lines: dict[str, tuple[list[float], list[int]]] = {}
    for stage, begun, ended, n_images in rows:
        times, done = lines.setdefault(stage, ([], []))
        before = done[-1] if done else 0
        times += [(begun - first) / seconds, (ended - first) / seconds]
        done += [before, before + n_images]
    for stage, (times, done) in lines.items():
        ax.plot(times, done, marker=".", label=stage)
    ax.set(xlabel=f"{unit} since the first run", ylabel="images done")
    ax.legend()


def _refuse_none(n: int, stage: str) -> None:
    if not n:
        raise NotReady(f"{stage} has been run on no image yet; run it first, or name another stage")


def _printable(value: object) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= 40 else f"{text[:39]}…"
