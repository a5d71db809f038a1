"""What docs/loading.md promises."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore

TEXT = (Path(__file__).parent.parent / "docs" / "loading.md").read_text(encoding="utf-8")


@dataclass
class Worker:
    """One of torch's worker processes, as a dataset sees it."""

    id: int
    num_workers: int


@pytest.mark.parametrize("of", [0, 1, 3])
def test_the_recipe_for_torch_reads_every_image_once(
    finished: FeatureStore, monkeypatch: pytest.MonkeyPatch, of: int
) -> None:
    torch, data = types.ModuleType("torch"), types.ModuleType("torch.utils.data")
    worker: list[Worker | None] = [None]
    torch.from_numpy = lambda array: array  # type: ignore[attr-defined]
    names = {"IterableDataset": object, "DataLoader": lambda *_, **__: None, "get_worker_info": lambda: worker[0]}
    vars(data).update(names)
    for name, module in {"torch": torch, "torch.utils": types.ModuleType("utils"), "torch.utils.data": data}.items():
        monkeypatch.setitem(sys.modules, name, module)
    recipe = next(code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "IterableDataset" in code)
    namespace: dict[str, Any] = {}
    compiled = compile(recipe, "loading.md", "exec")
    types.FunctionType(compiled, namespace)()

    found = {}
    for number in range(max(of, 1)):
        worker[0] = Worker(number, of) if of else None
        for image_id, floats in namespace["Descriptors"](finished.path, "photo <> 'flower'"):
            assert image_id not in found
            found[image_id] = floats
    codes, offsets, image_ids = finished.matrix(where="photo <> 'flower'")
    for i, image_id in enumerate(image_ids.tolist()):
        if offsets[i] < offsets[i + 1]:
            assert np.array_equal(found.pop(image_id), finished.dequantize(codes[offsets[i] : offsets[i + 1]]))
    assert found == {}


def test_the_documented_columns_are_the_default_ones(finished: FeatureStore) -> None:
    sentence = re.search(r"the default is (.*?)\. ", TEXT.replace("\n", " "))
    assert sentence is not None
    assert re.findall(r"`(\w+)`", sentence[1]) == finished.load(where="false").column_names
