"""BLAS with one thread: with several, the last bits of a result differ, and so would payloads and models.

The number of threads belongs to the whole process. Two callers that each limit it and put it back do harm: the second
takes the first one's limit for the original, and the first to leave lifts the other's. Here the first to come limits,
and the last to leave restores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class _Limit:
    """How many are inside, and each library that was limited for them, with the threads that it had before."""

    lock = threading.Lock()
    holders = 0
    limited: dict[str, tuple[Any, int]] = {}  # noqa: RUF012 - there is one limit in a process


def blas_controller() -> ThreadpoolController:
    """Return what knows the libraries that are loaded by now. It takes milliseconds to make, and sees no later ones."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread(known: ThreadpoolController | None = None) -> Iterator[None]:
    """Let BLAS use one thread, in this thread and all others, until the last that is inside has left.

    Args:
        known: of libraries that are loaded, from `blas_controller`; None looks for them.
    """
    libraries = (blas_controller() if known is None else known).lib_controllers
    # OpenMP keeps a number for each thread, so that no other is in the way.
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
    # From 3.7 on, threadpoolctl lets OpenBLAS be limited by the thread that did so first; others ask in vain, and in
    # silence. Control is given back, so that the next caller has it.
    give_back = getattr(library, "clear_controlling_thread", None)
    if give_back is not None:
        if library.num_threads != threads:
            give_back(force=True)
            library.set_num_threads(threads)
        give_back()
