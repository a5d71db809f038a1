"""The sections about the descriptors: how many an image has, what the PCA keeps, what is clipped, and what failed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from featurestore.api import FeatureStore
from featurestore.apps.html_report.asking import DESCRIPTORS, FILENAME, USABLE, Ask, rows_of, short, table_of
from featurestore.apps.html_report.charts import bar_chart, nice_step
from featurestore.apps.html_report.parts import Chart, Column, Note, Section, Table
from featurestore.errors import FeatureStoreError

if TYPE_CHECKING:
    from featurestore.query import Status

BINS = 24  # of a histogram, at most
MOST_FAILURES = 200
MOST_CLIPPED = 10
PCA, SCALE, CODES = "fit_pca", "quantize", "quantized"
SPECTRUM = """\
model = store.model("fit_pca")
share = model["singular_values_"] ** 2 / (model["var_"].sum() * model["n_samples_seen_"])"""
CLIPPED_STAGE = """\
SELECT stage, sum(n_clipped) AS clipped, sum(n_descriptors * dim) AS numbers,
  sum(n_clipped) / sum(n_descriptors * dim) AS share
FROM partitions WHERE current AND n_clipped IS NOT NULL AND n_descriptors > 0 GROUP BY stage ORDER BY stage"""
CLIPPED_IMAGES = """\
SELECT filename, n_clipped, n_descriptors, n_clipped / (n_descriptors * {dim}) AS share
FROM quantized WHERE n_clipped > 0 ORDER BY share DESC, image_id LIMIT {most}"""
FAILED = f"""\
SELECT filename, subset, stage, status, {short("error")} AS error FROM failures ORDER BY image_id"""


def descriptors(ask: Ask, status: Status) -> Section:
    """Return the section of the descriptors of each image."""
    query = (
        "SELECT stage, count(*) AS images, min(n_descriptors) AS least, median(n_descriptors) AS median,\n"
        "  avg(n_descriptors) AS mean, max(n_descriptors) AS most, sum(n_descriptors) AS descriptors\n"
        f"FROM descriptor_counts WHERE {USABLE} GROUP BY stage ORDER BY descriptors DESC, stage"
    )
    numbers = [Column(name, "number") for name in ("images", "least", "median", "mean", "most", "in all")]
    counts = table_of(ask, "Descriptors of an image, by stage", (Column("stage", "name"), *numbers), query)
    most = {row[0]: row[5] for row in counts.rows}
    charts = [_histogram(ask, one.stage, most[one.stage]) for one in status.stages if most.get(one.stage)]
    note = [] if counts.rows else [Note("No image has been extracted yet.")]
    return Section("descriptors", "Descriptors of an image", [*charts, counts] if charts else note)


def _histogram(ask: Ask, stage: str, most: int) -> Chart:
    width = max(1, round(nice_step(most, BINS)))
    query = (
        f"SELECT n_descriptors // {width} * {width} AS at_least, count(*) AS images\n"
        f"FROM descriptor_counts WHERE stage = '{stage}' AND {USABLE} GROUP BY at_least ORDER BY at_least"
    )
    columns = (Column(f"descriptors, from (bins of {width:,})", "number"), Column("images", "number"))
    table = table_of(ask, f"Images by descriptors of {stage}", columns, query)
    found: dict[int, int] = dict(map(tuple, table.rows))
    bars = [
        (
            float(left),
            float(found.get(left, 0)),
            f"{left:,} to {left + width - 1:,} descriptors: {found.get(left, 0):,} images",
        )
        for left in range(0, most + 1, width)
    ]
    svg = bar_chart(
        bars,
        name=f"histogram-{stage}",
        title=f"Histogram of descriptors an image, {stage}",
        description=f"{sum(found.values()):,} images have up to {most:,} descriptors.",
        labels=(f"descriptors an image ({stage})", "images"),
        width=width,
    )
    return Chart(svg, table)


def spectrum(store: FeatureStore, status: Status) -> Section | None:
    """Return the section of the PCA's spectrum; None for a store without that stage."""
    stage = next((one for one in status.stages if one.stage == PCA), None)
    if stage is None:
        return None
    heading = "Spectrum of the PCA"
    try:
        model = store.model(PCA)
    except FeatureStoreError as error:
        return Section("spectrum", heading, [Note(str(error))])
    total = float(model["var_"].sum()) * int(model["n_samples_seen_"])
    shares = [float(value) ** 2 / total if total else 0.0 for value in model["singular_values_"]]
    sums = [math.fsum(shares[: n + 1]) for n in range(len(shares))]
    rows = [(n + 1, share, so_far) for n, (share, so_far) in enumerate(zip(shares, sums, strict=True))]
    columns = (Column("component", "number"), Column("share", "share"), Column("so far", "share"))
    table = Table("Share of the variance by component", columns, rows, SPECTRUM, "Python")
    bars = [
        (n + 0.5, share * 100, f"component {n + 1}: {share:.2%}, so far {sums[n]:.1%}")
        for n, share in enumerate(shares)
    ]
    svg = bar_chart(
        bars,
        name="spectrum-chart",
        title="Variance explained by each component",
        description=f"{len(shares)} components explain {sums[-1]:.1%} of the variance, the first {shares[0]:.1%}.",
        labels=("component", "% of the variance"),
        line=[so_far * 100 for so_far in sums],
    )
    lead = f"{len(shares)} components explain {sums[-1]:.1%} of the variance. The line adds up the bars."
    return Section("spectrum", heading, [Chart(svg, table)], lead)


def clipping(ask: Ask, status: Status) -> Section | None:
    """Return the section of the values that were clipped to the bounds; None for a store that quantizes nothing."""
    if not any(one.stage == SCALE for one in status.stages):
        return None
    columns = (
        Column("stage", "name"),
        Column("clipped", "number"),
        Column("of values", "number"),
        Column("share", "share"),
    )
    whole = table_of(ask, "Values beyond the bounds", columns, CLIPPED_STAGE)
    if not whole.rows:
        return Section("clipping", "Clipping", [Note("Nothing has been quantized yet.")])
    dims = rows_of(ask, f"SELECT max(dim) FROM partitions WHERE current AND stage = '{SCALE}'")
    query = CLIPPED_IMAGES.format(dim=dims[0][0], most=MOST_CLIPPED)
    wanted = (FILENAME, Column("clipped", "number"), DESCRIPTORS, Column("share", "share", bar=True))
    try:
        parts: list[Table | Note] = [whole, table_of(ask, "Images with the largest share", wanted, query)]
    except FeatureStoreError as error:  # a damaged partition
        parts = [whole, Note(f"The images can't be read: {error}", warning=True)]
    lead = "A value beyond the bounds of its dimension is stored as the nearest of the two."
    return Section("clipping", "Clipping", parts, lead)


def failures(ask: Ask) -> Section:
    """Return the section of the images that failed, with their reasons."""
    by_status = table_of(
        ask,
        "Failed images by reason",
        (Column("stage", "name"), Column("status", "name"), Column("images", "number", bar=True)),
        "SELECT stage, status, count(*) AS images FROM failures GROUP BY ALL ORDER BY images DESC, stage, status",
    )
    if not by_status.rows:
        return Section("failures", "Failures", [Note("No image failed.")])
    columns = (FILENAME, Column("subset"), Column("stage", "name"), Column("status", "name"), Column("reason"))
    return Section(
        "failures", "Failures", [by_status, table_of(ask, "Failed images", columns, FAILED, most=MOST_FAILURES)]
    )
