"""Free memory, to check before something large is allocated."""

from __future__ import annotations

from pathlib import Path

from featurestore.errors import NotEnoughSpace
from featurestore.formatting import human_bytes

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container: its limit is below what the machine has


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
