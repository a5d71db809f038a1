"""The loop over stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurestore import catalog
from featurestore.pipeline import runner
from tests.small import tiny_store


def test_a_run_plans_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = list[object]()

    def make_plan(connection: Any, steps: Any, **options: Any) -> Any:
        planned.append(steps)
        return catalog.make_plan(connection, steps, **options)

    monkeypatch.setattr(runner, "make_plan", make_plan)
    store = tiny_store(tmp_path)
    assert len(planned) == 5  # one for each stage, of which the first is that of the forecast
    planned.clear()
    store.run(workers=0)
    assert len(planned) == 1
