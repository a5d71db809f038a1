"""``featurestore.toml``: strict in what it takes, and the same after it was written and read."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from featurestore.config import (
    LARGEST,
    StoreSettings,
    build,
    check_format,
    check_names,
    identity,
    initial,
    option,
    read_tables,
    render,
)
from featurestore.errors import ConfigError, FormatError
from featurestore.stages import FLOW, flow_from


@dataclass(frozen=True)
class Grain:
    coarse: float = option(0.5, "how coarse", low=0.0, high=1.0)


@dataclass(frozen=True)
class Recipe:
    count: int = option(3, "how many", low=1, high=10)
    share: float = option(0.25, "how much")
    label: str = option("a", "what it is called")
    whole: bool = option(True, "all of it")
    kind: Literal["plain", "fancy"] = option("plain", "which kind")
    bits: Literal[8, 4] = option(8, "how fine")
    limit: int = option(100, "policy: which are refused", policy=True)
    grain: Grain = option(Grain, "the grain")

    def __post_init__(self) -> None:
        if self.share > self.count:
            raise ValueError(f"share {self.share} is above count {self.count}")


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(Recipe, table, where="recipe")
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            {"cuont": 1},
            "[recipe] has no key 'cuont'; its keys are count, share, label, whole, kind, bits, limit, grain",
        ),
        ({"count": "3"}, "[recipe] count is '3', and should be a whole number"),
        ({"count": 3.0}, "[recipe] count is 3.0, and should be a whole number"),
        ({"count": True}, "[recipe] count is True, and should be a whole number"),
        ({"share": False}, "[recipe] share is False, and should be a number"),
        ({"label": 3}, "[recipe] label is 3, and should be text in quotes"),
        ({"whole": 1}, "[recipe] whole is 1, and should be true or false"),
        ({"count": [1]}, "[recipe] count is [1], and should be a whole number"),
        ({"count": 10**400}, "[recipe] count is too large; it has to be below 2^63"),
        ({"kind": "odd"}, "[recipe] kind is 'odd', and can be plain or fancy"),
        ({"kind": ["plain"]}, "[recipe] kind is ['plain'], and can be plain or fancy"),
        ({"bits": 5}, "[recipe] bits is 5, and can be 8 or 4"),
        ({"bits": 4.0}, "[recipe] bits is 4.0, and can be 8 or 4"),
        ({"count": 0}, "[recipe] count is 0, and should be at least 1 and at most 10"),
        ({"count": 11}, "[recipe] count is 11, and should be at least 1 and at most 10"),
        ({"share": float("nan")}, "[recipe] share is nan, and should be a finite number"),
        ({"share": float("-inf")}, "[recipe] share is -inf, and should be a finite number"),
        ({"grain": 3}, "[recipe] grain is a table, and 3 is not"),
        ({"grain": {"fine": 1}}, "[recipe.grain] has no key 'fine'; its keys are coarse"),
        ({"grain": {"coarse": 2}}, "[recipe.grain] coarse is 2.0, and should be at least 0.0 and at most 1.0"),
        ({"share": 5.0}, "[recipe] share 5.0 is above count 3"),
    ],
)
def test_what_is_wrong_is_said(table: dict[str, Any], text: str) -> None:
    assert refused(table) == f"featurestore.toml: {text}"


def test_a_bound_on_one_side_is_said_alone() -> None:
    with pytest.raises(ConfigError, match=r"\[store\] format is 0, and should be at least 1$"):
        build(StoreSettings, {"format": 0}, where="store")


def test_what_is_right_is_taken() -> None:
    assert build(Recipe, {}, where="recipe") == Recipe()
    found = build(Recipe, {"share": 1, "kind": "fancy", "grain": {"coarse": 1}}, where="recipe")
    assert (found.share, type(found.share), found.kind, found.grain) == (1.0, float, "fancy", Grain(1.0))
    assert [build(Recipe, {"count": n}, where="recipe").count for n in (1, 10)] == [1, 10]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[store", r"can't be read: .*\. Correct the file, or put back a copy of it$"),
        (b"[store]\nimages = 'a'\nimages = 'b'\n", r"can't be read: .*Cannot overwrite a value"),
        (b"[store]\nimages = '\xff'\n", r"can't be read: .*utf-8"),
        (b"chunk_size = 3\n[store]\n", r"'chunk_size' is outside of a \[table\]; move it into the table it belongs"),
        (b"# much\n" * (LARGEST // 6), r"can't be read: it has more than 1,000,000 bytes"),
        (None, r"can't be read: .*No such file"),
    ],
    ids=["no TOML", "twice", "not UTF-8", "outside", "large", "missing"],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "featurestore.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^featurestore.toml:? {text}"):
        read_tables(path)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^featurestore.toml: unknown table \[extarct\]; the tables are store, extract. If it is of a stage",
    ):
        check_names(["store", "extarct"], ["store", "extract"])


def test_a_newer_format_is_refused_before_its_keys_are() -> None:
    with pytest.raises(
        FormatError, match=r"^this store is of format 9, and this version of featurestore knows 1; upgrade featurestore"
    ):
        check_format({"store": {"format": 9, "keys": "of the future"}})
    check_format({"store": {"format": 1}})
    check_format({})


@pytest.mark.parametrize(
    "text", ["C:\\images\\new", 'he said "now"', "it's", "Gemälde/模様/🖼", "a\tb\nc", "", "#1", "'''", '"""', "\\u0041"]
)
def test_what_is_written_is_read_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "featurestore.toml"
    settings = StoreSettings(images=text, dataset=text, split=text, chunk_size=7)
    recipe = Recipe(count=2, share=1e-17, label=text, whole=False, grain=Grain(0.125))
    path.write_text(render([("store", settings), ("recipe", recipe)]), encoding="utf-8")
    tables = read_tables(path)
    assert build(StoreSettings, tables["store"], where="store") == settings
    assert build(Recipe, tables["recipe"], where="recipe") == recipe


def test_every_key_of_a_new_recipe_is_explained() -> None:
    stages = flow_from({})
    lines = render([("store", StoreSettings()), *((stage.name, stage) for stage in stages)]).splitlines()
    keys = [line for line in lines if " = " in line and not line.startswith("#")]
    assert len(keys) > 15
    assert [line for line in keys if " # " not in line] == []


def test_a_whole_recipe_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "featurestore.toml"
    stages = flow_from({"extract": {"sift": {"nfeatures": 5}}, "project": {"top": 9}, "fit_scale": {"over": "train"}})
    path.write_text(render([(stage.name, stage) for stage in stages]), encoding="utf-8")
    assert flow_from(read_tables(path)) == stages != flow_from({})


def test_a_new_store_may_begin_with_another_value_than_a_recipe_without_the_key_means() -> None:
    text = render([(stage.name, initial(stage)) for stage in FLOW])
    assert flow_from(tomllib.loads(text)) == tuple(initial(stage) for stage in FLOW)
    found = {stage.name: {f.name: getattr(initial(stage), f.name) for f in fields(stage)} for stage in FLOW}
    means = {stage.name: {f.name: getattr(stage(), f.name) for f in fields(stage)} for stage in FLOW}
    assert found == {**means, "fit_pca": {**means["fit_pca"], "solver": "gram"}}
    assert means["fit_pca"]["solver"] == "incremental", "a store without the key was made by it"


def test_policies_are_no_part_of_the_identity() -> None:
    assert identity(Recipe(limit=1)) == identity(Recipe(limit=2))
    assert "limit" not in identity(Recipe())
    assert identity(Recipe())["grain"] == {"coarse": 0.5}


@pytest.mark.parametrize("stage", FLOW)
def test_every_parameter_but_policies_and_how_results_are_stored_changes_the_variant(stage: type[Any]) -> None:
    silent = {"max_pixels", "truncated", "max_seconds", "compression"}
    changed = {"int": 7, "float": 0.5, "bool": False}
    others: dict[str, Any] = {"extractor": "rootsift", "over": "train", "truncated": "keep", "solver": "covariance"}
    others |= {"select": "mix", "bits": 4}
    others |= {"compression": "none" if getattr(stage, "compression", "zstd") == "zstd" else "zstd"}
    before = stage().variant(reads="", model_id=None)
    for field in fields(stage):
        name, value = field.name, others.get(field.name, changed.get(str(field.type)))
        assert value is not None, f"give {name} another value here"
        after = build(stage, {name: value}, where=stage.name).variant(reads="", model_id=None)
        assert (after == before) == (name in silent), name
    assert stage().variant(reads="a", model_id=None) != before != stage().variant(reads="", model_id="b")


def test_an_option_without_a_default_is_a_mistake_of_ours() -> None:
    @dataclass(frozen=True)
    class Bare:
        count: int

    with pytest.raises(TypeError, match=r"Bare.count has no default"):
        identity(Bare(3))
