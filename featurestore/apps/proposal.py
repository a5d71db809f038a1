"""The recipe that `tune` proposes: the best setting within a budget of bytes, and what it makes stale."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from featurestore.api import FeatureStore
from featurestore.apps.trial import Setting
from featurestore.apps.tuning import Trial, Tuning
from featurestore.errors import QueryError
from featurestore.formatting import human_bytes


@dataclass(frozen=True)
class Proposal:
    """A recipe within a budget.

    Args:
        trial: of the setting.
        budget: bytes.
        changes: parameters of the recipe that would change, by stage and name; none if it is the store's already.
        stale: stages that would be computed again.
        written: whether the recipe was changed.
    """

    trial: Trial
    budget: int
    changes: dict[str, dict[str, Any]]
    stale: tuple[str, ...]
    written: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def propose(store: FeatureStore, tuning: Tuning, budget: int) -> Proposal:
    """Return the setting within a budget that is best on the half of the queries that settings are chosen by.

    The best has most queries whose image is first, and most whose image is found, added up; of equals it is the
    smallest. Nothing is changed.

    Args:
        store: that was tuned.
        tuning: the result of `tune`.
        budget: bytes of quantize and the index, of all images that the tuning is for.

    Raises:
        QueryError: no setting fits.
    """
    fitting = [trial for trial in tuning.trials if trial.bytes.collection <= budget]
    if not fitting:
        least = min((trial.bytes.collection for trial in tuning.trials), default=0)
        raise QueryError(
            f"no setting fits into {human_bytes(budget)}; the smallest takes "
            f"{human_bytes(least)} for {tuning.n_images:,} images: allow more, or try fewer descriptors with --top"
        )
    best = min(fitting, key=lambda trial: (-trial.worth, trial.bytes.collection))
    changes = _changes(store, best.setting)
    return Proposal(best, budget, changes, _stale(store, changes))


def with_recipe(store: FeatureStore, proposal: Proposal) -> Proposal:
    """Write a proposal to the recipe of the store, whose comments stay; nothing is computed.

    Raises:
        StoreBusy: another process is changing the store.
    """
    if proposal.changes:
        store.configure(proposal.changes)
    return Proposal(proposal.trial, proposal.budget, proposal.changes, proposal.stale, written=bool(proposal.changes))


def _changes(store: FeatureStore, setting: Setting) -> dict[str, dict[str, Any]]:
    wanted: dict[str, dict[str, Any]] = {
        "fit_pca": {"n_components": setting.dims},
        "project": {"top": setting.top, "select": setting.select},
        "quantize": {"bits": setting.bits},
    }
    changes = {}
    for stage, values in wanted.items():
        now = store.parameters(stage)
        other = {name: value for name, value in values.items() if now[name] != value}
        if other:
            changes[stage] = other
    return changes


def _stale(store: FeatureStore, changes: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return the stages from the first changed one on, in the order of the flow."""
    names = [one.stage for one in store.status().stages]
    return tuple(names[min(names.index(stage) for stage in changes) :]) if changes else ()
