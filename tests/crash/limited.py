"""The command line, in which no file may grow beyond so many bytes: of all, or from the first file of a kind on.

``python -m tests.crash.limited LIMIT run STORE ...``, where LIMIT is JSON: the bytes, and the kind (``blocks/extract``)
or nothing.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from featurestore.cli import main
from featurestore.storage import Root


def limit_files(limit: int, kind: str) -> None:
    """Set the limit now, or when the first file of a kind is begun."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    original = Root.draft

    def draft(root: Root, name: str) -> AbstractContextManager[Path]:
        if kind in name:
            set_limit()
        return original(root, name)

    Root.draft = draft  # type: ignore[method-assign, assignment]
    if not kind:
        set_limit()


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a process that starts warm has not asked the environment
    limits: list[Any] = json.loads(sys.argv[1])
    limit_files(*limits)
    sys.argv = ["featurestore", *sys.argv[2:]]
    main()
