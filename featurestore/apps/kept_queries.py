"""The descriptors of a sample's queries, in a file, so that they are extracted once for any number of calls.

The file is written again as queries are extracted, so that a call that was killed goes on with most of them.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.apps.trial import Query, Raw
from featurestore.apps.tuning_sample import Sample
from featurestore.rows import KEYPOINT
from featurestore.system import output_at

LOG = logging.getLogger("featurestore.apps")
SUFFIX = ".queries.npz"


def file_of(trials: Path) -> Path:
    """Return the path of the file of queries beside one of trials."""
    return trials.with_name(trials.name + SUFFIX)


def keep_queries(path: Path, sample: Sample, queries: Sequence[Query]) -> None:
    """Write the first queries of a sample, those that have been extracted.

    Raises:
        OutputError: the file can't be written.
        NotEnoughSpace: the disk is full.
    """
    there = [query.raw for query in queries if query.raw is not None]
    if not there:
        return
    arrays: dict[str, Any] = {
        "digest": np.array(sample.digest),
        "errors": np.array([query.error or "" for query in queries]),
        "counts": np.array([0 if query.raw is None else len(query.raw.descriptors) for query in queries], np.int64),
        "descriptors": np.concatenate([raw.descriptors for raw in there]),
        "keypoints": np.concatenate([raw.keypoints for raw in there]),
    }
    with output_at(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def kept_queries(path: Path, sample: Sample) -> list[Query]:
    """Return the first queries of a sample that the file has; none if it is of another sample, or can't be used."""
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as read:
            if str(read["digest"]) != sample.digest:
                return []
            errors, counts = read["errors"].tolist(), read["counts"]
            borders = [0, *np.cumsum(counts).tolist()]
            descriptors, keypoints = read["descriptors"], read["keypoints"]
        whole = len(errors) == len(counts) <= len(sample.asked) and len(descriptors) == len(keypoints) == borders[-1]
        if not whole or keypoints.dtype != KEYPOINT:
            raise ValueError("its parts do not belong together")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        LOG.warning("%s can't be used (%s): the queries are extracted again", path, error)
        return []
    parts = [slice(*border) for border in pairwise(borders)]
    return [
        sample.as_query(asked, None if why else Raw(asked.name, descriptors[part], keypoints[part]), why or None)
        for asked, why, part in zip(sample.asked, errors, parts, strict=False)
    ]
