"""A plot of `tune`: what settings find by the bytes of an image, with the front of those worth their bytes."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from featurestore.apps.evaluation import Scores
from featurestore.apps.plots import new_figure
from featurestore.apps.tuning import Trial, Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 10.0  # inches


def plot_tuning(tuning: Tuning) -> Axes:
    """Draw recall at 1 and the share found by the bytes of an image, and return the axes of the first.

    Both are of the half of the queries that did not choose, with 95 % intervals. A line joins the front, which the
    other half has chosen. `save_plot` writes the figure.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure = new_figure(WIDTH)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, name in ((left, "recall at 1"), (right, "found")):
        _draw(ax, tuning, name)
        ax.set_xscale("log")
        for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            axis("{x:g}")
    right.legend(fontsize="small")
    axes: Axes = left
    return axes


def _draw(ax: Axes, tuning: Tuning, name: str) -> None:
    def share(trial: Trial) -> tuple[float, float, float]:
        scores: Scores = trial.reported[-1]
        if name == "found":
            return (scores.found, *scores.found_interval)
        return (scores.recall[1], *scores.recall_interval)

    def select(trial: Trial) -> str:
        return trial.setting.select

    for of, group in groupby(sorted(tuning.trials, key=select), key=select):
        trials = list(group)
        values = [share(trial) for trial in trials]
        ends = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
        places = [trial.bytes.image / 1000 for trial in trials]
        ax.errorbar(places, [value for value, _, _ in values], yerr=ends, fmt="o", alpha=0.6, label=of)
    front = sorted((trial for trial in tuning.trials if trial.front), key=lambda trial: trial.bytes.image)
    ax.plot([trial.bytes.image / 1000 for trial in front], [share(trial)[0] for trial in front], "k-", label="front")
    for trial in front:
        place = trial.bytes.image / 1000, share(trial)[0]
        ax.annotate(f"{trial.setting}  ", place, fontsize="x-small", rotation=90, va="top", ha="right")
    ax.set_title(name)
    ax.set_xlabel("kB an image, quantize and index")
