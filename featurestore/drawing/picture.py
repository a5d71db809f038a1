"""`Picture`: pixels that a notebook displays and that can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import OutputError
from featurestore.system import StrPath, located, output_at, refuse_output

LONGEST = 1600  # pixels of the longer side, by default
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn picture. As the last expression of a notebook's cell it is displayed.

    Attributes:
        pixels: ``(height, width, 3)`` uint8, in BGR order, as of ``cv2.imread``.
        title: one line about it.
    """

    pixels: NDArray[np.uint8]
    title: str

    def save(self, path: StrPath, *, force: bool = False) -> None:
        """Write the picture to a file, whose suffix chooses the format: png, jpg, jpeg or webp.

        Args:
            path: the file.
            force: replace a file that exists.

        Raises:
            UnusablePath: the system can't open such a path.
            OutputError: its name has another suffix, the file exists, or its folder does not exist or can't be written.
            NotEnoughSpace: the disk is full.
        """
        target = located(path, "a picture")
        check_suffix(target)
        refuse_output(target, None, force=force)
        with output_at(target) as temporary:
            temporary.write_bytes(self._encoded(target.suffix.lower()))

    def _repr_png_(self) -> bytes:
        """Return it as PNG, for Jupyter."""
        return self._encoded(".png")

    def __repr__(self) -> str:
        """Return the title and the size."""
        height, width = self.pixels.shape[:2]
        return f"<Picture of {width} x {height} pixels: {self.title}>"

    def _encoded(self, suffix: str) -> bytes:
        import cv2

        done, data = cv2.imencode(suffix, self.pixels)
        if not done:
            height, width = self.pixels.shape[:2]
            raise OutputError(f"a picture of {width} x {height} pixels can't be written as {suffix}; take .png")
        return data.tobytes()


def check_suffix(path: Path) -> None:
    """Check that the name of a picture chooses a format.

    Raises:
        OutputError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path.name} ends in none of {', '.join(SUFFIXES)}, which determine the format; name it so")
