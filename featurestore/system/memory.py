"""Free memory, to check before something large is allocated."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from featurestore.errors import NotEnoughSpace
from featurestore.formatting import human_bytes

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container: its limit is below what the machine has

# SIFT and PCA allocate hundreds of megabytes again and again. By default glibc returns them to the system, and getting
# them back, zeroed page by page, takes a quarter of the time. So glibc may keep half a gigabyte (mallopt(3)); other
# C libraries do without. See docs/decisions/0063.
KEPT_BYTES = {"MALLOC_MMAP_THRESHOLD_": 128 << 20, "MALLOC_TRIM_THRESHOLD_": 512 << 20}
# Arrow's own allocator, mimalloc, returns freed memory after 10 ms; with -1 it never does. It reads this when loaded.
PURGE_DELAY = "MIMALLOC_PURGE_DELAY"
KEPT = {**{name: str(size) for name, size in KEPT_BYTES.items()}, PURGE_DELAY: "-1"}  # in the environment of workers
_MALLOPT = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}  # as <malloc.h> numbers them


def keep_freed_memory() -> None:
    """Let glibc and Arrow keep memory in this process, as in workers; what the user has set in the environment stays.

    Arrow heeds it if it has not been imported yet.

    It is for a program's own process. A library leaves its caller's allocator alone.
    """
    os.environ.setdefault(PURGE_DELAY, KEPT[PURGE_DELAY])
    with suppress(AttributeError, OSError, ValueError):  # another C library
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return
        libc = ctypes.CDLL(None)
        for name, size in KEPT_BYTES.items():
            if name not in os.environ:
                libc.mallopt(_MALLOPT[name], size)


def free_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None if the system does not say."""
    limits = [limit for limit in (_machine(), _container()) if limit is not None]
    return min(limits, default=None)


def _machine() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _container() -> int | None:
    try:
        limit, used = ((CGROUP / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        return max(int(limit) - int(used) + _reclaimable(), 0)
    except (OSError, ValueError):  # none, or "max"
        return None


def _reclaimable() -> int:
    """Return the bytes of ``memory.current`` that the kernel frees on demand: its page cache.

    Every file that was read counts as used memory. Files in a tmpfs can't be freed, and are not in the two lists.
    """
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    amounts = dict(line.split(maxsplit=1) for line in lines)
    return sum(int(amounts.get(name, 0)) for name in ("active_file", "inactive_file", "slab_reclaimable"))


def refuse_if_too_large(what: str, n_bytes: int, *, instead: str) -> None:
    """Refuse what does not fit into memory, before the system kills the process.

    Raises:
        NotEnoughSpace: it does not fit; the message says what to do ``instead``.
    """
    free = free_memory()
    if free is not None and n_bytes > free:
        raise NotEnoughSpace(
            f"{what} would take {human_bytes(n_bytes)} of memory, and {human_bytes(free)} are free; {instead}"
        )
