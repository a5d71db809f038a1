from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import faiss  # noqa: F401 - loads an OpenBLAS with OpenMP, where each thread has a setting of its own
import pytest
import threadpoolctl

from featurestore.system import blas


def threads(api: str | None = None) -> list[int]:
    """Return the threads of all libraries, or of those with one setting for the whole process."""
    libraries = threadpoolctl.threadpool_info()
    if api is not None:
        libraries = [one for one in libraries if one["user_api"] == api and one["threading_layer"] != "openmp"]
    return [library["num_threads"] for library in libraries]


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    """Every library has three threads, however many cores there are."""
    import sklearn.decomposition  # noqa: F401 - loads a BLAS of its own, and OpenMP; late: it takes a second of CPU time

    with threadpoolctl.threadpool_limits(3):
        yield


def test_one_thread_until_the_end() -> None:
    with blas.one_blas_thread():
        assert set(threads()) == {1}
    assert set(threads()) == {3}


def test_who_leaves_first_does_not_lift_the_limit_of_the_other() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(blas.one_blas_thread())
    second.enter_context(blas.one_blas_thread())
    first.close()
    assert set(threads("blas")) == {1}
    second.close()
    assert set(threads("blas")) == {3}


def test_a_library_that_is_loaded_later_is_limited_too() -> None:
    late: Any = blas.blas_controller()
    early: Any = blas.blas_controller()
    early.lib_controllers = early.lib_controllers[:1]
    with blas.one_blas_thread(early), blas.one_blas_thread(late):
        assert set(threads("blas")) == {1}
    assert set(threads("blas")) == {3}


def test_a_thread_that_limits_first_does_not_keep_the_others_from_it() -> None:
    """threadpoolctl 3.7 lets one thread control OpenBLAS, and the fixture has made it this one."""
    seen: list[set[int]] = []

    def work() -> None:
        with blas.one_blas_thread():
            seen.append(set(threads()))

    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert seen == [{1}]
    assert set(threads()) == {3}


def test_an_error_lifts_the_limit() -> None:
    with pytest.raises(KeyError), blas.one_blas_thread():
        raise KeyError
    assert set(threads()) == {3}


def test_threads_that_overlap_leave_everything_as_it_was() -> None:
    inside, left = threading.Barrier(8), threading.Barrier(8)
    seen: list[set[int]] = []

    def work(turn: int) -> None:
        with blas.one_blas_thread():
            inside.wait()
            seen.append(set(threads()))
            if turn % 2:
                left.wait()
        if not turn % 2:
            seen.append(set(threads("blas")))  # the others are still inside
            left.wait()

    workers = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [{1}] * 12
    assert set(threads()) == {3}


def test_the_kernels_are_known_where_each_blas_is_openblas() -> None:
    found = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    expected = {library["architecture"] for library in found if library["internal_api"] == "openblas"}
    blas.blas_kernels.cache_clear()
    assert blas.blas_kernels() == (expected if all(one["internal_api"] == "openblas" for one in found) else set())
    blas.blas_kernels.cache_clear()


def test_no_kernel_is_known_where_one_blas_is_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, **known: str) -> None:
            self.known = known

        def info(self) -> dict[str, str]:
            return self.known

    class Controller:
        lib_controllers = [  # noqa: RUF012
            Library(user_api="openmp", internal_api="openmp"),
            Library(user_api="blas", internal_api="openblas", architecture="Haswell"),
            Library(user_api="blas", internal_api="mkl"),
        ]

    monkeypatch.setattr(blas, "blas_controller", Controller)
    blas.blas_kernels.cache_clear()
    assert blas.blas_kernels() == set()
    blas.blas_kernels.cache_clear()
