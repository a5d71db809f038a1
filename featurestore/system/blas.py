"""BLAS with one thread: with several threads the last bits of results differ, and so would payloads and model ids.

The number of threads is a setting of the whole process. If two callers each set and restored it, the second would
restore the first one's limit, and the first would lift the limit too early. Here the first caller sets the limit, and
the last one to leave restores the original.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class _Limit:
    """The callers inside `one_blas_thread`, and each limited library with its original number of threads."""

    lock = threading.Lock()
    holders = 0
    limited: dict[str, tuple[Any, int]] = {}  # noqa: RUF012 - there is one limit in a process


def blas_controller() -> ThreadpoolController:
    """Return a controller of the BLAS libraries loaded so far. Making one takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@lru_cache(maxsize=1)
def blas_kernels() -> frozenset[str]:
    """Return the names of the OpenBLAS kernels that this process has loaded; none if one BLAS is another library."""
    libraries = [library.info() for library in blas_controller().lib_controllers]
    found = [library for library in libraries if library["user_api"] == "blas"]
    if any(library["internal_api"] != "openblas" for library in found):
        return frozenset()
    return frozenset(str(library["architecture"]) for library in found)


@contextmanager
def one_blas_thread(known: ThreadpoolController | None = None) -> Iterator[None]:
    """Limit BLAS to one thread in the whole process, until the last caller leaves this block.

    Args:
        known: a controller from `blas_controller`; None makes one.
    """
    libraries = (blas_controller() if known is None else known).lib_controllers
    # OpenMP has a setting for each thread, so callers do not interfere.
    own = [(library, library.num_threads) for library in libraries if _each_has_its_own(library)]
    shared = [library for library in libraries if not _each_has_its_own(library)]
    with _Limit.lock:
        _Limit.holders += 1
    try:
        for library, _ in own:
            library.set_num_threads(1)
        with _Limit.lock:
            for library in shared:
                if library.filepath not in _Limit.limited:
                    _Limit.limited[library.filepath] = (library, library.num_threads)
                    _set(library, 1)
        yield
    finally:
        for library, threads in own:
            library.set_num_threads(threads)
        _leave()


def _leave() -> None:
    with _Limit.lock:
        _Limit.holders -= 1
        if not _Limit.holders:
            for library, threads in _Limit.limited.values():
                _set(library, threads)
            _Limit.limited.clear()


def _each_has_its_own(library: Any) -> bool:
    return library.user_api == "openmp" or getattr(library, "threading_layer", None) == "openmp"


def _set(library: Any, threads: int) -> None:
    library.set_num_threads(threads)
    # Since 3.7, threadpoolctl lets only the first thread control OpenBLAS, and silently ignores others. Give control
    # back, so that the next caller has it.
    give_back = getattr(library, "clear_controlling_thread", None)
    if give_back is not None:
        if library.num_threads != threads:
            give_back(force=True)
            library.set_num_threads(threads)
        give_back()
