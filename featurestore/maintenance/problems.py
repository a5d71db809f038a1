"""The problems that verify finds, and its report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from featurestore.notebook import Tabular

NO_FILE = "a pipe, a device or a link to no file"  # what has the name of a file of the store


class Kind(StrEnum):
    """The kind of a problem."""

    CATALOG = "catalog"
    DATASET = "dataset"
    PARTITION = "partition"
    RECORD = "record"  # of a partition that is whole
    MODEL = "model"
    MODEL_RECORD = "model record"
    STATE = "state"
    ORPHAN = "orphan"
    SEARCH = "search"  # a file that searches have made or use, and that can be made again
    IMAGE = "image"
    LEAKAGE = "leakage"
    VARIANT = "variant"
    UNREADABLE = "unreadable"  # a file or folder of any kind that could not be read
    UNTRUSTED = "untrusted"  # left out of an untrusted store


@dataclass(frozen=True)
class Problem:
    """A fault of the store, with its remedy."""

    kind: Kind
    name: str  # name of a file, an image or a model
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.kind}: {self.name}: {self.what}; {self.remedy}"


@dataclass
class VerifyReport(Tabular):
    """The report of verify: counts of checked files, and the problems."""

    n_files: int = 0
    n_bytes: int = 0
    n_images: int = 0  # image files
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems, or all were repaired."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}
