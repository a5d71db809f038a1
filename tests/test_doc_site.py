"""The pages of the documentation site, as ``make docs`` writes them. Zensical checks their links."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

from docs import make_site, reference
from featurestore import errors
from featurestore.cli.program import cli
from featurestore.stages import EXTRACTORS, STAGES

DOCS = Path(make_site.__file__).parent


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return make_site.pages()


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    listed = [
        place
        for section in make_site.navigation(pages)
        for entries in section.values()
        for entry in entries
        for place in entry.values()
    ]
    assert sorted(listed) == sorted(pages)
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} <= set(listed)


def test_a_new_page_is_a_guide(pages: dict[str, str]) -> None:
    (guides,) = (
        section["Guides"] for section in make_site.navigation({**pages, "new.md": "# Novelty\n"}) if "Guides" in section
    )
    assert {"Novelty": "new.md"} in guides


@pytest.mark.parametrize(
    ("name", "link", "there"),
    [
        ("README.md", "[views](docs/views.md#images)", "[views](views.md#images)"),
        ("README.md", "![x](docs/images/match.png)", "![x](images/match.png)"),
        ("README.md", "[why](docs/decisions)", "[why](decisions/index.md)"),
        ("docs/views.md", "[all](../README.md)", "[all](index.md)"),
        ("docs/decisions/0110-rooms.md", "[views](../views.md)", "[views](../views.md)"),
        ("docs/views.md", "[a test](../tests/small.py)", "a test"),
        ("docs/views.md", "[gone](gone.md)", "[gone](gone.md)"),
        ("docs/views.md", "[run](commands.md#run)", "[run](commands.md#run)"),
        ("docs/views.md", "[out](https://example.org/x.md)", "[out](https://example.org/x.md)"),
    ],
)
def test_links_hold_on_the_site(name: str, link: str, there: str) -> None:
    places = make_site.sources()
    assert make_site.LINK.sub(lambda found: make_site.link_on_site(found, name, places), link) == there


def test_every_command_and_option_is_described(pages: dict[str, str]) -> None:
    for name, command in cli.commands.items():
        section = pages["commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for param in command.params:
            wanted = param.opts[0] if param.opts[0].startswith("-") else param.make_metavar
            assert not isinstance(wanted, str) or wanted in section, (name, wanted)


def test_every_key_of_the_recipe_is_described(pages: dict[str, str]) -> None:
    tables: dict[str, type[Any]] = {name: STAGES.find(name) for name in STAGES.names()}
    tables |= {f"extract.{name}": EXTRACTORS.find(name) for name in ("sift", "colmap")}
    for name, cls in tables.items():
        section = pages["recipe.md"].partition(f"\n## [{name}] ")[2].partition("\n## ")[0]
        assert [f.name for f in dataclasses.fields(cls) if f"\n| `{f.name}` | " not in section] == [], name
    assert "| `top` | `1800` | descriptors that are kept of an image. At least 1. |" in pages["recipe.md"]


def test_what_methods_return_is_described() -> None:
    found = {path.rpartition(".")[2] for path in reference.results()}
    assert {"QueryResult", "Matrix", "Status", "PairMatch", "SearchResult", "Plan", "VerifyReport", "Picture"} <= found


def test_every_name_of_the_reference_exists(pages: dict[str, str]) -> None:
    paths = re.findall(r"^::: (\S+)$", "".join(pages.values()), re.MULTILINE)
    assert len(paths) > 20
    assert [path for path in paths if pkgutil.resolve_name(path) is None] == []


def test_errors_exit_as_documented(pages: dict[str, str]) -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert {one.exit_code for one in classes if issubclass(one, errors.FeatureStoreError)} == {1}
    assert "`exit_code`, which is 1" in pages["exit-codes.md"]


def test_our_environment_variables_are_described(pages: dict[str, str]) -> None:
    root = DOCS.parent
    files = [root / "Makefile", *(root / "featurestore").rglob("*.py"), *(root / "benchmarks").glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    found = {f"`{name}" for name in re.findall(r"(?<!_)\bFEATURESTORE_[A-Z_]*[A-Z]", text)}
    assert "`FEATURESTORE_STORE" in found
    assert {name for name in found if name not in pages["environment.md"]} == set()
