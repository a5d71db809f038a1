"""Plug-ins by name: those of the package itself, and those of other packages."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import ModuleType
from typing import ClassVar

import pytest

from featurestore.config import identity, render
from featurestore.errors import ConfigError, PluginError
from featurestore.registry import Registry
from featurestore.stages import Extract, flow_from
from featurestore.stages.extractors import EXTRACTORS, Extractor


def installed(folder: Path, group: str, entries: str, *, package: str = "toy") -> None:
    """Make a package's metadata, as an installer does."""
    info = folder / f"{package}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which Python imports."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def registry() -> Registry[type]:
    return Registry("codec", "featurestore.tests", {"fraction": "fractions:Fraction", "path": "string:Template"})


def test_what_is_built_in_comes_first_and_plugins_by_name(site: Path) -> None:
    installed(site, "featurestore.tests", "zeta = decimal:Decimal\nalpha = uuid:UUID")
    assert registry().names() == ("fraction", "path", "alpha", "zeta")
    assert registry().find("zeta").__name__ == "Decimal"
    assert registry().find("path") is Template


def test_an_unknown_name_is_one_line_with_the_known_ones(site: Path) -> None:
    installed(site, "featurestore.tests", "alpha = uuid:UUID")
    with pytest.raises(ConfigError) as caught:
        registry().find("zip")
    assert str(caught.value) == (
        "there is no codec 'zip'; the codecs are fraction, path, alpha. If a package brings it (as an entry point of "
        "featurestore.tests), install that into this Python with: pip install"
    )


def test_a_name_that_two_have_is_one_line_with_both(site: Path) -> None:
    installed(site, "featurestore.tests", "path = uuid:UUID\nalpha = uuid:UUID")
    with pytest.raises(PluginError) as caught:
        registry().find("path")
    assert str(caught.value) == (
        "there is more than one codec 'path': featurestore itself (string:Template) and toy 1.5 (uuid:UUID); uninstall "
        "all but one. The codecs are fraction, path, alpha"
    )
    installed(site, "featurestore.tests", "alpha = decimal:Decimal", package="other")
    with pytest.raises(PluginError, match=r"other 1.5 \(decimal:Decimal\) and toy 1.5 \(uuid:UUID\)"):
        registry().find("alpha")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:Toy", "No module named 'no_such_module'"),
        ("uuid:Toy", "module 'uuid' has no attribute 'Toy'"),
        ("broken_toy:Toy", "Torch was built without this"),
    ],
)
def test_what_can_not_be_imported_is_one_line(site: Path, value: str, reason: str) -> None:
    (site / "broken_toy.py").write_text("raise RuntimeError('Torch was built without this')")
    installed(site, "featurestore.tests", f"alpha = {value}")
    with pytest.raises(PluginError) as caught:
        registry().find("alpha")
    assert str(caught.value) == (
        f"the codec 'alpha' of toy 1.5 ({value}) can't be loaded ({reason}); reinstall the package, with all that it "
        "needs"
    )


@dataclass(frozen=True)
class Misnamed(Extractor):
    name: ClassVar[str] = "another"


def test_a_class_is_called_as_its_entry_point(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("misnamed_toy")
    module.Misnamed = Misnamed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "misnamed_toy", module)
    installed(site, "featurestore.tests", "alpha = misnamed_toy:Misnamed")
    with pytest.raises(PluginError, match=r"the codec 'alpha' of toy 1.5 \(.*\) calls itself 'another'; give"):
        registry().find("alpha")


EDGES = """
from dataclasses import dataclass
from typing import ClassVar
from featurestore.config import option
from featurestore.stages.extractors.base import Extractor

@dataclass(frozen=True)
class Edges(Extractor):
    name: ClassVar[str] = "edges"
    dim: ClassVar[int] = 4
    dtype: ClassVar[str] = "float32"

    reach: int = option(3, "pixels around a point", low=1)
"""


@pytest.fixture
def edges(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings an extractor."""
    (site / "edges_toy.py").write_text(EDGES)
    installed(site, "featurestore.extractors", "edges = edges_toy:Edges")
    fresh: Registry[type[Extractor]] = Registry(EXTRACTORS._kind, EXTRACTORS._group, EXTRACTORS._built_in)
    monkeypatch.setattr(EXTRACTORS, "__dict__", fresh.__dict__)


@pytest.mark.usefixtures("edges")
def test_an_extractor_has_a_table_of_its_own() -> None:
    (extract, *_) = flow_from({"extract": {"extractor": "edges", "edges": {"reach": 9}, "sift": {"sigma": 2.0}}})
    assert isinstance(extract, Extract)
    assert (extract.extractor.name, extract.layout().dim, extract.layout().dtype) == ("edges", 4, "float32")
    assert identity(extract) == {"extractor": "edges", "edges": {"reach": 9}}, "nothing of SIFT"
    assert "[extract.edges]\nreach = 9 # pixels around a point" in render([("extract", extract)])


@pytest.mark.usefixtures("edges")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"extractor": "edges", "edges": {"reach": 0}}, r"\[extract.edges\] reach is 0, and should be at least 1"),
        ({"extractor": "edges", "sift": {"reach": 1}}, r"\[extract.sift\] has no key 'reach'; its keys are nfeatures"),
        ({"edges": {"sigma": 1.0}}, r"\[extract.edges\] has no key 'sigma'; its keys are reach"),
        ({"edges": 3}, r"\[extract\] edges is a table, and 3 is not"),
        ({"extractor": 3}, r"\[extract\] extractor is 3, and should be text in quotes"),
        (
            {"extractor": "surf"},
            r"\[extract\] extractor: there is no extractor 'surf'; the extractors are sift, rootsift",
        ),
        ({"surf": {}}, r"\[extract\] has no key 'surf'; its keys are extractor, max_pixels"),
    ],
)
def test_what_is_wrong_in_the_tables_of_extractors_is_said(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^featurestore.toml: {message}"):
        flow_from({"extract": table})


@pytest.mark.usefixtures("edges")
def test_the_version_of_an_extractor_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    (extract, *_) = flow_from({"extract": {"extractor": "edges"}})
    before = extract.variant(reads="", model_id=None)
    assert isinstance(extract, Extract)
    monkeypatch.setattr(type(extract.extractor), "version", 2)
    assert extract.variant(reads="", model_id=None) != before
