"""Files in a store without a record."""

from __future__ import annotations

from pathlib import PurePosixPath

from featurestore.errors import UnreadableFile
from featurestore.storage import Root


def stray_files(root: Root) -> tuple[list[str], list[UnreadableFile]]:
    """Return the names of all files in the store's folders, except checkpoints, which have no record.

    Also returns an error for each folder that can't be listed.
    """
    found = [root.listing(folder, "") for folder in ("dataset", "partitions", "models")]
    names = [name for names, _ in found for name in names if PurePosixPath(name).name != "state.npz"]
    return names, [error for _, failed in found for error in failed]
