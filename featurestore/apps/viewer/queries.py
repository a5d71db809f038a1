"""Pictures that people drop on the viewer to search for: a few files outside of the store, for as long as it runs."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from pathlib import Path

from featurestore.errors import QueryError
from featurestore.formatting import human_bytes
from featurestore.images import size_of
from featurestore.system import temporary_folder

MOST_BYTES = 32 << 20  # of a file
MOST_PIXELS = 16_000_000  # SIFT takes 240 bytes of memory for each: 4 GB
KEPT = 8  # files: the results of older ones can't be looked at any more
TOO_LARGE = f"the file has more than {human_bytes(MOST_BYTES)}; take a smaller picture"


class Queries:
    """The latest pictures that were dropped, by a name that cannot be guessed."""

    def __init__(self) -> None:
        """Make an empty folder, which ends with the process.

        Raises:
            OutputError: there is no place for it.
        """
        self._folder = temporary_folder()
        self._names: OrderedDict[str, Path] = OrderedDict()
        self._turn = threading.Lock()

    def add(self, data: bytes) -> str:
        """Keep a file and return its name. Only the decoding process looks into it.

        Raises:
            QueryError: it is no picture, or one that is too large.
        """
        if len(data) > MOST_BYTES:
            raise QueryError(TOO_LARGE)
        size = size_of(data)
        if size is None:
            raise QueryError("this is no picture that OpenCV can read; take a JPEG, PNG, WebP or TIFF")
        if size[0] * size[1] > MOST_PIXELS:
            raise QueryError(
                f"the picture has {size[0]:,} x {size[1]:,} pixels; "
                f"take one of at most {MOST_PIXELS // 10**6} megapixels"
            )
        name = secrets.token_hex(16)
        path = Path(self._folder.name) / name
        path.write_bytes(data)
        with self._turn:
            self._names[name] = path
            while len(self._names) > KEPT:
                self._names.popitem(last=False)[1].unlink(missing_ok=True)
        return name

    def path(self, name: str) -> Path:
        """Return the file of a name.

        Raises:
            QueryError: there is no such file, or not any more.
        """
        with self._turn:
            found = self._names.get(name)
        if found is None:
            raise QueryError("the viewer does not have this picture any more; search for it again")
        return found
