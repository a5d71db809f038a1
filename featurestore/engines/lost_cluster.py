"""Errors of a cluster that is lost: what happened, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.errors import EngineLost


def scheduler_gone(scheduler: str) -> EngineLost:
    """Return the error for a scheduler that no longer answers."""
    return EngineLost(
        f"the Dask scheduler at {scheduler} is gone. Finished work is kept; start a scheduler and workers, then run "
        "the same command again"
    )


def no_workers(scheduler: str, refused: Mapping[str, str], *, seconds: float) -> EngineLost:
    """Return the error for a scheduler that has had no worker for so long.

    Args:
        scheduler: its address.
        refused: workers that can't work for the run, and why.
        seconds: the time without a worker.
    """
    unfit = "".join(f", and {address} is not used, since it {why}" for address, why in list(refused.items())[-1:])
    return EngineLost(
        f"the Dask scheduler at {scheduler} has had no worker for {seconds:.0f} s{unfit}. Finished work is kept; "
        f"start some with `dask worker {scheduler}`, then run the same command again"
    )
