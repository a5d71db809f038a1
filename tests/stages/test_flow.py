"""The flow of a store: the stages of every store, and those of plug-ins that its recipe names."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from featurestore.errors import ConfigError, PluginError
from featurestore.rows import Layout
from featurestore.stages import (
    FLOW,
    STAGES,
    FitStage,
    Stage,
    TransformStage,
    codes_of,
    flow_from,
    layouts_of,
    upstream_of,
)


class Thin(TransformStage):
    """A stage without a model."""

    name: ClassVar[str] = "thin"
    reads: ClassVar[str] = "extract"
    view: ClassVar[str] = "thinned"

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        assert reads is not None
        return Layout(5, reads.dtype, reads.keypoints)


class FitThin(FitStage):
    """It learns from the other."""

    name: ClassVar[str] = "fit_thin"
    reads: ClassVar[str] = "thin"


class Bits(Thin):
    """It comes first by its name, and last by what it needs."""

    name: ClassVar[str] = "bits"
    reads: ClassVar[str] = "thin"
    model: ClassVar[str | None] = "fit_thin"
    view: ClassVar[str] = "in_bits"
    codes: ClassVar[bool] = True

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        assert reads is not None
        assert fit is not None
        return Layout(fit.dim(reads), "uint8", reads.keypoints)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that bring these stages."""
    stages: tuple[type[Stage], ...] = (*FLOW, Thin, FitThin, Bits)
    monkeypatch.setattr(STAGES, "_loaded", {stage.name: stage for stage in stages})


def names(**recipe: dict[str, Any]) -> list[str]:
    return [stage.name for stage in flow_from(recipe)]


def test_what_is_installed_is_in_no_flow_that_does_not_name_it() -> None:
    assert names() == names(extract={}) == [stage.name for stage in FLOW]


def test_a_stage_stands_after_all_that_it_needs() -> None:
    own = [stage.name for stage in FLOW]
    assert names(bits={}, thin={}, fit_thin={}) == [*own, "thin", "fit_thin", "bits"]


@pytest.mark.parametrize(
    ("tables", "absent"), [(["bits"], "fit_thin"), (["bits", "thin"], "fit_thin"), (["fit_thin"], "thin")]
)
def test_a_stage_needs_what_it_reads_and_learns_from(tables: list[str], absent: str) -> None:
    with pytest.raises(PluginError, match=rf" needs {absent}, which is not in the flow of this store; add the table"):
        names(**{name: {} for name in tables})


def test_a_view_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for view in ("projected", "Thin", "a-b"):
        monkeypatch.setattr(Thin, "view", view)
        with pytest.raises(PluginError, match=rf"^the view '{view}' of the stage thin is that of"):
            names(thin={})


def test_unknown_keys_of_a_plugins_table_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"^featurestore.toml: \[thin\] has no key 'top'"):
        names(thin={"top": 3})


def test_the_codes_are_those_of_the_stage_that_says_so() -> None:
    assert codes_of(flow_from({})).name == "quantize"
    assert codes_of(flow_from({"thin": {}})).name == "quantize", "not of the last stage"
    flow = flow_from({"bits": {}, "thin": {}, "fit_thin": {}})
    assert codes_of(flow).name == "bits"
    assert [stage.name for stage in upstream_of(flow, "bits")] == ["extract", "thin", "bits"]


def test_layouts_need_no_model() -> None:
    layouts = layouts_of(flow_from({"bits": {}, "thin": {}, "fit_thin": {}, "fit_pca": {"n_components": 7}}))
    assert {name: (layout.dim, layout.dtype) for name, layout in layouts.items()} == {
        "extract": (128, "uint8"),
        "project": (7, "float32"),
        "quantize": (7, "uint8"),
        "thin": (5, "uint8"),
        "bits": (5, "uint8"),
    }
