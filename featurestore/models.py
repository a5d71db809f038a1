"""Model files: named arrays and a manifest in an ``.npz``, addressed by the hash of their content.

No pickle is written or read: nothing that is loaded can run code.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, FormatError

FORMAT = 1
MANIFEST = "manifest"
IMAGES = "images"  # which images were learnt, as a bitmap over image_id

Arrays = dict[str, NDArray[Any]]


def model_id(variant: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the hash of a model's content: 16 hex digits."""
    sha = hashlib.sha256(variant.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(json.dumps([name, array.dtype.str, list(np.shape(arrays[name]))]).encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    """Write arrays and their manifest to ``path``."""
    text = json.dumps({"format": FORMAT, **manifest}, sort_keys=True).encode()
    with path.open("wb") as file:
        np.savez_compressed(file, **{MANIFEST: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the manifest of a file.

    Raises:
        CorruptFile: it is missing, damaged, or holds anything but plain arrays.
        FormatError: it was written by a newer version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        manifest = json.loads(arrays.pop(MANIFEST).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"{path.name} can't be read as a model ({error})") from error
    if manifest.get("format") != FORMAT:
        raise FormatError(
            f"{path.name} is of model format {manifest.get('format')}, and this version knows {FORMAT}; "
            "use a newer featurestore"
        )
    return arrays, manifest


def to_bitmap(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return ids as a bitmap: 10 million images in at most 1.25 MB, rewritten at every checkpoint."""
    present = np.zeros(int(ids.max()) + 1 if len(ids) else 0, dtype=bool)
    present[ids] = True
    return np.packbits(present, bitorder="little")


def from_bitmap(bitmap: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the ids in a bitmap, ascending."""
    return np.flatnonzero(np.unpackbits(bitmap, bitorder="little")).astype(np.int64)
