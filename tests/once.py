"""What is made once for all processes that `pytest -n` starts, by the one that asks first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name``, which ``make`` has filled and all test processes share. Not to be changed.

    Names belong to the module of ``make``.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / make.__module__
    shared.mkdir(exist_ok=True)
    folder = shared / name
    whole = folder.with_name(f"{name}.whole")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def copied(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of the folder ``name`` for this test process alone: who reads a store may lock it."""
    return Path(shutil.copytree(once(factory, name, make), factory.mktemp(name) / name))
