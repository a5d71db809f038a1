"""What is missing and why, on catalogs that were written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    HeldCatalog,
    StagePlan,
    Step,
    chunk_states,
    downstream_partitions,
    make_plan,
    resolve,
    why_missing,
)
from featurestore.catalog.runs import utc_now
from featurestore.catalog.statements import delete_rows, insert_row, query_value, update_rows, upsert
from featurestore.formatting import chunk_list
from featurestore.stages import FLOW, STAGES, Extract, FitStage, Stage, TransformStage, flow_from
from featurestore.storage import Root

N_CHUNKS = 3
N_IMAGES = 2  # in a chunk
Missing = dict[str, dict[int, str]]


def short(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Hand:
    """A catalog in which partitions and models are written down without being made."""

    def __init__(self, connection: DuckDBPyConnection, **recipe: dict[str, Any]) -> None:
        self.connection = connection
        self.flow = flow_from(recipe)

    @property
    def steps(self) -> dict[str, Step]:
        return {step.stage.name: step for step in resolve(self.connection, self.flow)}

    def plan(self, **options: Any) -> dict[str, StagePlan]:
        return make_plan(self.connection, tuple(self.steps.values()), **options)

    def missing(self, **options: Any) -> Missing:
        """Why each chunk is missing, by chunk stage."""
        plans = {name: plan for name, plan in self.plan(**options).items() if not isinstance(plan.step.stage, FitStage)}
        return {name: {work.chunk_id: work.why for work in plan.todo} for name, plan in plans.items() if plan.todo}

    def why(self, stage: str) -> str:
        return why_missing(self.connection, self.steps[stage])

    def add_chunks(self, first: int = 0, n: int = N_CHUNKS) -> None:
        for c in range(first, first + n):
            values = {"chunk_id": c, "first_image_id": c * N_IMAGES, "n_images": N_IMAGES, "digest": short("d", c)}
            upsert(self.connection, "chunks", values)

    def payload(self, stage: str, chunk: int) -> str:
        """The payload that a stage reads of a chunk today."""
        step = self.steps[stage]
        if step.stage.reads == "images":
            return str(query_value(self.connection, f"SELECT digest FROM chunks WHERE chunk_id = {chunk}"))
        query = f"SELECT payload FROM partitions WHERE chunk_id = {chunk} AND stage = $stage AND variant = $variant"
        key = {"stage": step.stage.reads, "variant": step.reads_variant}
        return str(query_value(self.connection, query, key))

    def make(self, stage: str, chunks: range | list[int] = range(N_CHUNKS), content: str = "") -> None:
        """Record a run of a stage on the existing partitions."""
        step = self.steps[stage]
        assert step.variant is not None
        self.name_variant(step)
        for c in chunks:
            read = self.payload(stage, c)
            values = {
                **{"stage": stage, "variant": step.variant, "chunk_id": c, "input_payload": read, "origin": "run"},
                **{"payload": short(stage, read, content), "path": f"{stage}/{c}", "checksum": "", "n_bytes": 1},
                **{"n_images": N_IMAGES, "n_descriptors": 1, "dim": 1, "n_clipped": None, "pruned": False},
            }
            upsert(self.connection, "partitions", {**values, "versions": {}})

    def name_variant(self, step: Step, **changed: Any) -> None:
        values = {
            **{"variant": step.variant, "stage": step.stage.name, "version": step.stage.version},
            **{"parameters": step.stage.parameters(), "reads_variant": step.reads_variant, "model_id": step.model_id},
        }
        upsert(self.connection, "variants", {**values, **changed})

    def fit(self, stage: str, model_id: str, *, generation: int = 0, parent: str | None = None) -> None:
        step = self.steps[stage]
        self.name_variant(step)
        values = {
            **{"model_id": model_id, "stage": stage, "variant": step.variant, "parent_id": parent, "partial": False},
            **{"generation": generation, "path": "", "checksum": "", "n_bytes": 1, "n_images": 1, "summary": {}},
        }
        upsert(self.connection, "models", values)

    def change(self, stage: str, chunks: list[int], **values: Any) -> None:
        for chunk in chunks:
            update_rows(self.connection, "partitions", values, where={"stage": stage, "chunk_id": chunk})

    def drop(self, stage: str, chunks: list[int]) -> None:
        for chunk in chunks:
            delete_rows(self.connection, "partitions", {"stage": stage, "chunk_id": chunk})

    def finish(self) -> Hand:
        """Write down a finished store."""
        self.add_chunks()
        self.make("extract")
        self.fit("fit_pca", "a" * 16)
        self.make("project")
        self.fit("fit_scale", "b" * 16)
        self.make("quantize")
        return self

    def with_recipe(self, **recipe: dict[str, Any]) -> Hand:
        return Hand(self.connection, **recipe)

    def results(self, **statuses: tuple[int, int | None]) -> None:
        """Write down extract's results: by status, the image and its pixels."""
        for status, (image, pixels) in statuses.items():
            row = {"stage": "extract", "variant": self.steps["extract"].variant, "chunk_id": image // N_IMAGES}
            row |= {"image_id": image, "error": None, "n_descriptors": 0, "status": status, "pixels": pixels}
            insert_row(self.connection, "results", row)

    def run(self, stage: str, outcome: str, message: str | None, seconds: int = 0) -> None:
        values = {
            **{"run_id": short(stage, outcome, seconds), "stage": stage, "variant": self.steps[stage].variant},
            **{"parameters": {}, "versions": {}, "host": "", "pid": 1, "workers": 1, "ended": None},
            **{"started": utc_now().replace(year=2000, microsecond=0, second=seconds), "outcome": outcome},
            **{"message": message, "n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0, "seconds": 0.0},
        }
        insert_row(self.connection, "runs", values)


@contextmanager
def written(catalog: HeldCatalog) -> Iterator[Hand]:
    """What a test writes is rolled back."""
    with catalog.reading() as connection:
        connection.begin()
        yield Hand(connection)
        connection.rollback()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldCatalog]:
    with HeldCatalog(Root(tmp_path_factory.mktemp("bare"))) as catalog:
        catalog.migrate()
        yield catalog


@pytest.fixture(scope="module")
def finished_by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldCatalog]:
    with HeldCatalog(Root(tmp_path_factory.mktemp("hand"))) as catalog:
        catalog.migrate()
        with catalog.transaction() as connection:
            Hand(connection).finish()
        yield catalog


@pytest.fixture
def empty(bare: HeldCatalog) -> Iterator[Hand]:
    with written(bare) as hand:
        yield hand


@pytest.fixture
def hand(finished_by_hand: HeldCatalog) -> Iterator[Hand]:
    with written(finished_by_hand) as hand:
        yield hand


def every(why: str) -> dict[int, str]:
    return dict.fromkeys(range(N_CHUNKS), why)


def test_a_finished_store_has_nothing_to_do(hand: Hand) -> None:
    plans = hand.plan()
    assert [plan.todo for plan in plans.values()] == [()] * 5
    assert [plan.n_chunks for plan in plans.values()] == [N_CHUNKS] * 5
    assert all(step.variant for step in hand.steps.values())


def test_a_new_store_has_everything_to_do(empty: Hand) -> None:
    empty.add_chunks()
    assert empty.missing() == {
        "extract": every("never run"),
        "project": every("waits for fit_pca"),
        "quantize": every("waits for fit_scale"),
    }
    assert [work.chunk_id for work in empty.plan()["fit_pca"].todo] == [0, 1, 2]
    assert [step.variant is None for step in empty.steps.values()] == [False, False, True, True, True]


def test_new_chunks_alone_are_missing(hand: Hand) -> None:
    hand.add_chunks(N_CHUNKS, 1)
    assert hand.missing() == {stage: {3: "never run"} for stage in ("extract", "project", "quantize")}
    assert hand.plan()["fit_pca"].todo == ()  # a fitted model stays


P, W, C = "pruned, and needed again", "never run", "input changed"


@pytest.mark.parametrize(
    ("pruned", "gone", "missing"),
    [
        (["extract"], [], {}),
        (["extract", "project"], [], {}),
        (["extract", "project", "quantize"], [], {}),
        (["extract"], ["quantize"], {"quantize": W}),  # project is there, and that is all that quantize reads
        (["extract"], ["project"], {"extract": P, "project": W, "quantize": C}),
        (["project"], ["quantize"], {"project": P, "quantize": W}),
        (["extract", "project"], ["quantize"], {"extract": P, "project": P, "quantize": W}),
        ([], ["extract"], {"extract": W, "project": C, "quantize": C}),
        ([], ["project", "quantize"], {"project": W, "quantize": W}),
    ],
)
def test_a_pruned_partition_is_missing_only_where_another_needs_it(
    hand: Hand, pruned: list[str], gone: list[str], missing: dict[str, str]
) -> None:
    for stage in pruned:
        hand.change(stage, [1], pruned=True)
    for stage in gone:
        hand.drop(stage, [1])
    assert hand.missing() == {stage: {1: why} for stage, why in missing.items()}


def test_the_columns_of_the_state(hand: Hand) -> None:
    hand.change("extract", [1], pruned=True)
    hand.drop("project", [1])
    states = {(state.stage, state.chunk_id): state for state in chunk_states(hand.connection, [*hand.steps.values()])}
    assert len(states) == 3 * N_CHUNKS
    found = {
        stage: (state.current, state.wanted, state.pruned, state.upstream_current)
        for (stage, chunk_id), state in states.items()
        if chunk_id == 1
    }
    assert found == {
        "extract": (True, True, True, True),
        "project": (False, True, False, True),
        "quantize": (False, False, False, False),
    }
    assert states["project", 0].current
    assert not states["project", 0].wanted
    assert states["quantize", 0].upstream_current


@pytest.mark.parametrize(
    ("model", "pruned", "missing"),
    [
        ("fit_scale", ["project"], {"project": every(P)}),
        ("fit_scale", ["extract", "project"], {"extract": every(P), "project": every(P)}),
        ("fit_scale", ["extract"], {}),
        ("fit_pca", ["extract"], {"extract": every(P)}),
    ],
)
def test_a_fit_without_a_model_needs_what_it_reads(hand: Hand, model: str, pruned: list[str], missing: Missing) -> None:
    for stage in pruned:
        hand.change(stage, [0, 1, 2], pruned=True)
    delete_rows(hand.connection, "models", {"stage": model})
    waiting = {"fit_scale": ["quantize"], "fit_pca": ["project", "quantize"]}[model]
    found = hand.missing()
    assert {stage: why for stage, why in found.items() if stage not in waiting} == missing
    works = hand.plan()[model].todo
    assert [work.chunk_id for work in works] == [0, 1, 2]
    reads = hand.steps[model].stage.reads
    assert {(work.input_ready, work.why) for work in works} == {
        (False, "pruned") if reads in pruned else (True, "never run")
    }


def test_what_is_asked_for_by_name_is_wanted(hand: Hand) -> None:
    hand.change("extract", [0, 2], pruned=True)
    assert hand.missing(asked=["extract"]) == {"extract": {0: P, 2: P}}
    assert hand.missing(asked=["project"]) == {}


def test_another_payload_makes_what_follows_stale_at_once(hand: Hand) -> None:
    hand.make("extract", [1], content="other")
    assert hand.missing() == {"project": {1: C}, "quantize": {1: C}}
    hand.make("project", [1])
    assert hand.missing() == {"quantize": {1: C}}
    hand.make("quantize", [1])
    assert hand.missing() == {}


def test_what_comes_out_the_same_leaves_what_follows_alone(hand: Hand) -> None:
    hand.drop("extract", [1])
    assert hand.missing()["quantize"] == {1: C}  # as far as one can tell before it is made
    hand.make("extract", [1])
    assert hand.missing() == {}


def test_a_chunk_of_other_images_is_recomputed(hand: Hand) -> None:
    update_rows(hand.connection, "chunks", {"digest": "other"}, where={"chunk_id": 0})
    assert hand.missing() == {stage: {0: C} for stage in ("extract", "project", "quantize")}


def test_what_a_chunk_reads_and_replaces(hand: Hand) -> None:
    hand.make("extract", [1], content="other")
    work = hand.plan()["project"].todo[0]
    assert (work.input_payload, work.input_path, work.input_ready) == (hand.payload("project", 1), "extract/1", True)
    assert (work.old_path, work.redo, work.first_image_id, work.n_images) == ("project/1", None, 2, N_IMAGES)
    assert not hand.plan()["quantize"].todo[0].input_ready  # project comes first
    hand.change("extract", [1], pruned=True)
    assert not hand.plan()["project"].todo[0].input_ready


@pytest.mark.parametrize(
    ("recipe", "stage", "why"),
    [
        ({"extract": {"extractor": "rootsift"}}, "extract", "parameters changed (extractor: sift -> rootsift)"),
        (
            {"extract": {"sift": {"sigma": 2.0, "nfeatures": 9}}},
            "extract",
            "parameters changed (sift.nfeatures: 0 -> 9, sift.sigma: 1.6 -> 2.0)",
        ),
        ({"project": {"top": 5}}, "project", "parameters changed (top: 1800 -> 5)"),
        ({"quantize": {"keypoints": False}}, "quantize", "parameters changed (keypoints: True -> False)"),
        ({"project": {"top": 5}}, "quantize", "waits for fit_scale"),
        ({"fit_scale": {"margin": 0.5}}, "quantize", "waits for fit_scale"),
    ],
)
def test_a_changed_parameter_is_named(hand: Hand, recipe: dict[str, Any], stage: str, why: str) -> None:
    assert hand.with_recipe(**recipe).missing()[stage] == every(why)
    assert hand.missing() == {}  # and the old one is current again at once


def test_another_model_is_named(hand: Hand) -> None:
    hand.fit("fit_scale", "c" * 16, generation=1, parent="b" * 16)
    assert hand.missing() == {"quantize": every(f"model changed ({'b' * 16} -> {'c' * 16})")}
    hand.fit("fit_pca", "d" * 16, generation=1, parent="a" * 16)
    assert hand.missing()["project"] == every(f"model changed ({'a' * 16} -> {'d' * 16})")


def test_the_current_model_is_the_newest_child(hand: Hand) -> None:
    hand.fit("fit_scale", "0" * 16, generation=2, parent="c" * 16)
    hand.fit("fit_scale", "c" * 16, generation=1, parent="b" * 16)
    assert hand.steps["fit_scale"].current_model is not None
    assert hand.steps["quantize"].model_id == "0" * 16


def test_another_version_of_a_stage_is_named(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extract, "version", 2)
    assert hand.missing()["extract"] == every("version of the stage changed (1 -> 2)")


def test_other_partitions_upstream_are_named(hand: Hand) -> None:
    other = hand.with_recipe(extract={"extractor": "rootsift"})
    other.make("extract")
    other.fit("fit_pca", "a" * 16)  # of other descriptors, and yet the same
    assert other.why("project") == "extract changed"


def test_the_variant_that_is_compared_is_the_one_of_most_partitions(hand: Hand) -> None:
    hand.with_recipe(project={"top": 7}).make("project", [0])
    assert hand.with_recipe(project={"top": 3}).why("project") == "parameters changed (top: 1800 -> 3)"
    hand.drop("quantize", [1])
    assert hand.why("quantize") == "never run"  # some of its chunks are there, so nothing has changed


def test_a_failure_is_named_until_it_is_mended(hand: Hand) -> None:
    hand.drop("quantize", [2])
    hand.run("quantize", "done", None, 1)
    assert hand.why("quantize") == "never run"
    hand.run("quantize", "failed", "the disk is full", 2)
    assert hand.missing() == {"quantize": {2: "failed: the disk is full"}}
    hand.run("quantize", "interrupted", None, 3)
    assert hand.why("quantize") == "never run"


POLICIES = [
    # recipe of extract, retry, images to be made again
    ({}, (), []),
    ({}, ("missing",), [1]),
    ({}, ("missing", "unreadable"), [1, 3]),
    ({}, ("crashed",), []),
    ({"max_pixels": 200}, (), [0]),  # ok until now
    ({"max_pixels": 100}, (), [0]),
    ({"max_pixels": 99}, (), [0, 2]),  # an empty one too
    ({"max_pixels": 60_000_000}, (), [5]),  # too large until now
    ({"truncated": "keep"}, (), [4]),
    ({"truncated": "keep", "max_pixels": 99}, ("missing",), [0, 1, 2, 4]),
]


@pytest.mark.parametrize(("extract", "retry", "images"), POLICIES)
def test_policies_and_retries_make_single_images_again(
    hand: Hand, extract: dict[str, Any], retry: tuple[str, ...], images: list[int]
) -> None:
    hand.results(ok=(0, 300), missing=(1, None), empty=(2, 100), unreadable=(3, None), truncated=(4, 50))
    hand.results(too_large=(5, 60_000_000))
    plans = hand.with_recipe(extract=extract).plan(retry=retry)
    redo = {work.chunk_id: work.redo for work in plans["extract"].todo}
    assert sorted(image for found in redo.values() if found for image in found) == images
    assert set(redo) == {image // N_IMAGES for image in images}
    assert {work.why for work in plans["extract"].todo} <= {"failed or decided otherwise by a policy"}
    assert [name for name, plan in plans.items() if plan.todo] == (["extract"] if images else [])


def test_an_image_that_was_kept_truncated_is_refused_again(hand: Hand) -> None:
    keeping = hand.with_recipe(extract={"truncated": "keep"})
    hand.results(ok=(0, 10), empty=(3, 10))
    hand.connection.execute("UPDATE results SET error = 'truncated, kept: 3 of 9 rows'")
    assert keeping.missing() == {}
    assert {work.chunk_id: work.redo for work in hand.plan()["extract"].todo} == {0: frozenset({0}), 1: frozenset({3})}


def test_a_pruned_chunk_is_made_whole_for_one_image(hand: Hand) -> None:
    hand.results(missing=(1, None))
    hand.change("extract", [0], pruned=True)
    work = hand.plan(retry=("missing",))["extract"].todo[0]
    assert (work.chunk_id, work.why, work.redo) == (0, P, None)


def test_beyond_extract_a_crash_makes_the_whole_chunk_again(hand: Hand) -> None:
    row = {"stage": "project", "variant": hand.steps["project"].variant, "chunk_id": 1, "image_id": 2}
    row |= {"error": None, "n_descriptors": 0, "pixels": None}
    for status in ("crashed", "missing"):  # what is missing was handed down from extract
        insert_row(hand.connection, "results", {**row, "status": status})
    assert hand.missing(retry=("missing",)) == {}
    work = hand.plan(retry=("crashed",))["project"].todo[0]
    assert (work.chunk_id, work.redo) == (1, None)


def test_replaced_files_are_said(hand: Hand) -> None:
    plans = hand.plan(replaced={1: frozenset({3})})
    assert [(work.chunk_id, work.why, work.redo) for work in plans["extract"].todo] == [
        (1, "image files were replaced", frozenset({3}))
    ]
    assert not plans["project"].todo


def test_what_a_new_model_would_make_stale_is_counted(hand: Hand) -> None:
    assert downstream_partitions(hand.connection, hand.steps["fit_scale"]) == N_CHUNKS
    assert downstream_partitions(hand.connection, hand.steps["fit_pca"]) == 2 * N_CHUNKS


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([4], "chunk 4"),
        ([0, 1], "chunks 0-1"),
        ([7, 3, 1, 2, 0], "chunks 0-3, 7"),
        ([0, 2, 4, 6, 8], "chunks 0, 2, 4, 6, 8"),
        ([0, 2, 4, 6, 8, 9, 11], "chunks 0, 2, 4, 6, 8-9, ..."),
        (range(10_000), "chunks 0-9999"),
    ],
)
def test_chunks_as_people_write_them(chunks: list[int], text: str) -> None:
    assert chunk_list(chunks) == text


@pytest.mark.parametrize("stage", FLOW)
def test_every_stage_has_its_place_in_the_flow(stage: type[Stage]) -> None:
    names = [other.name for other in FLOW]
    before = names[: names.index(stage.name)]
    assert stage.reads in ["images", *before]
    assert stage.model in [None, *before]


class Aside(TransformStage):
    """A stage that reads extract beside project, and has no model."""

    name: ClassVar[str] = "aside"
    reads: ClassVar[str] = "extract"
    view: ClassVar[str] = "beside"


@pytest.fixture
def forked(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> Hand:
    """A finished store whose recipe names another stage that reads extract, and has not run it yet."""
    stages: tuple[type[Stage], ...] = (*FLOW, Aside)
    monkeypatch.setattr(STAGES, "_loaded", {stage.name: stage for stage in stages})
    return hand.finish().with_recipe(aside={})


def test_a_stage_beside_others_is_all_that_is_missing(forked: Hand) -> None:
    assert forked.missing() == {"aside": dict.fromkeys(range(N_CHUNKS), "never run")}
    assert all(work.input_ready for work in forked.plan()["aside"].todo)


def test_what_is_missing_of_one_branch_holds_up_no_other(forked: Hand) -> None:
    forked.drop("quantize", [1])
    works = {work.chunk_id: work for work in forked.plan()["aside"].todo}
    assert works[1].input_ready
    forked.make("aside")
    assert forked.missing() == {"quantize": {1: "never run"}}


def test_a_pruned_file_is_wanted_by_the_branch_that_lacks_something(forked: Hand) -> None:
    forked.change("extract", [0, 1], pruned=True)
    forked.change("project", [0, 1], pruned=True)
    assert forked.missing()["extract"] == {0: "pruned, and needed again", 1: "pruned, and needed again"}
    assert "project" not in forked.missing()
    forked.make("aside")
    assert forked.missing() == {}
