"""Model files: named arrays and a manifest in an ``.npz``, named by the hash of their content.

No pickle is written or read, so loading a model can't run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, FormatError
from featurestore.storage.manifest import parse_manifest
from featurestore.system import readable

FORMAT = 1
MANIFEST = "manifest"
IMAGES = "images"  # the training images, as a bitmap over image_id

# 10 million images are a bitmap of 1.25 MB, and a PCA has 0.1 MB: a larger file is not a model of ours.
MOST_BYTES = 256 << 20
# Bytes of an array's header: NumPy writes 118. A long header can be nested so deeply that parsing runs out of memory.
MOST_HEADER = 1000
# Exceptions of the zip and npy readers for a damaged or malicious file.
DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, NotImplementedError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, AttributeError, tokenize.TokenError, SyntaxError),
)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

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
        np.savez(file, **{MANIFEST: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the manifest of a file.

    Raises:
        CorruptFile: it is missing, damaged, or holds anything but plain arrays.
        UnreadableFile: it can't be opened or read.
        FormatError: it was written by a newer version.
    """
    try:
        with readable(path), zipfile.ZipFile(path) as file:
            arrays = _read_members(file)
        manifest = parse_manifest(arrays.pop(MANIFEST).tobytes())
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptFile(f"{path.name} can't be read as a model ({reason})") from error
    if manifest.get("format") != FORMAT:
        raise FormatError(
            f"{path.name} is of model format {manifest.get('format')}, and this version knows {FORMAT}; "
            "use a newer featurestore"
        )
    return arrays, manifest


def read_state(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the manifest of a fit in progress. The errors are those of `read_arrays`.

    The manifest has a digest of the arrays, except in files of early versions.
    """
    arrays, manifest = read_arrays(path)
    promised = manifest.get("arrays")
    if promised is not None and promised != model_id(str(manifest.get("variant")), arrays):
        raise CorruptFile(f"{path.name} does not hold the arrays that its manifest promises")
    return arrays, manifest


def _read_members(file: zipfile.ZipFile) -> Arrays:
    members = file.infolist()
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise ValueError(f"it claims to hold more than {MOST_BYTES >> 20} MiB")
    if any(not member.filename.endswith(".npy") for member in members):
        raise ValueError("it holds something other than arrays")
    arrays = {}
    for member in members:
        with file.open(member) as stream:
            arrays[member.filename.removesuffix(".npy")] = _read_array(stream, member.file_size)
    return arrays


def _read_array(stream: IO[bytes], size: int) -> NDArray[Any]:
    """Return the array of one member, after checking that its header announces exactly the member's size."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"it holds an array of an unknown version {version}")
    shape, fortran_order, dtype = _HEADERS[version](stream, max_header_size=MOST_HEADER)
    announced = math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf" or announced != size - stream.tell() or any(length < 0 for length in shape):
        raise ValueError(f"it holds an array of {dtype} and shape {shape} in {size} bytes")
    values = np.frombuffer(stream.read(announced), dtype=dtype)
    if len(values) * dtype.itemsize != announced:
        raise ValueError("it ends before its arrays do")
    return values.reshape(shape, order="F" if fortran_order else "C").copy()


def to_bitmap(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return ids as a bitmap: 10 million images in at most 1.25 MB, rewritten at every checkpoint."""
    present = np.zeros(int(ids.max()) + 1 if len(ids) else 0, dtype=bool)
    present[ids] = True
    return np.packbits(present, bitorder="little")


def from_bitmap(bitmap: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the ids in a bitmap, ascending."""
    return np.flatnonzero(np.unpackbits(bitmap, bitorder="little")).astype(np.int64)


def model_name(stage: str, variant: str, identity: str) -> str:
    """Return the name of a model below the root."""
    return f"models/{stage}/{variant}/{identity}.npz"
