"""What many tests share: sample images, a finished store made of them, and the optional folder of test images."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pytest
from hypothesis import settings

from featurestore import FeatureStore
from featurestore.cli.samples import make_samples
from featurestore.engines import all_cores
from tests.once import copied, once
from tests.recycled import Instances
from tests.small import configure, copy, make_small, small_store, tiny_store
from tests.warm import NearSandbox, connect_nursery
from tests.warm_workers import Nursery, cold, forking

LONG_SIDE = 200  # pixels: SIFT then takes milliseconds an image
TOP = 200  # descriptors: china has more of them, and most of flower has fewer
RECIPE = {"fit_pca": {"samples_per_image": TOP, "batch_size": 500}, "project": {"top": TOP}}


gc.set_threshold(20_000, 20, 20)  # before tests are collected: garbage collections take a twentieth of all time
LONG = os.environ.get("FEATURESTORE_TESTS") == "long"  # every combination, and more examples
settings.register_profile("short", max_examples=20, deadline=None, database=None)
settings.register_profile("long", max_examples=150, deadline=None, database=None)
settings.load_profile("long" if LONG else "short")


# Whole runs, processes that are forked or killed, and large inputs: `make test-quick` leaves these folders, modules and
# tests out. It runs some tests of every room.
SLOW = frozenset(
    {
        "api/test_images::test_a_selection_can_be_read_again_and_again",
        "api/test_images::test_a_selection_says_what_it_is",
        "api/test_images::test_a_selection_stays_with_its_variant",
        "api/test_images::test_an_image_that_has_left_the_dataset_is_still_read",
        "api/test_images::test_an_untrusted_store_is_selected_from",
        "api/test_images::test_the_verbs_of_the_store_are_those_of_a_selection",
        "api/test_search::test_crops_of_paintings_are_first_in_a_search",
        "api/test_search::test_crops_of_paintings_are_found",
        "api/test_search::test_views_of_a_wall_are_matched",
        "api/test_search::test_what_a_store_lacks",
        "api/test_search::test_without_the_size_the_outline_is_that_of_the_keypoints",
        "api/test_store",
        "apps/test_all_pairs",
        "apps/test_evaluation",
        "apps/test_html_report",
        "apps/test_plots",
        "apps/test_tuning",
        "apps/test_viewer",
        "catalog/test_catalog::test_a_full_disk_is_said_and_nothing_has_happened",
        "catalog/test_catalog::test_readers_wait_for_a_writer",
        "catalog/test_runs::test_the_error_of_a_run_is_not_hidden_by_that_of_its_record",
        "catalog/test_training",
        "catalog/test_upgrades",
        "cli/test_exit",
        "cli/test_log",
        "cli/test_maintain",
        "cli/test_named::test_bash_completes",
        "cli/test_program",
        "cli/test_read::test_an_error_is_one_line_and_a_code",
        "cli/test_read::test_info_of_an_image_that_is_not_there",
        "cli/test_search::test_an_untrusted_store_is_matched",
        "cli/test_search::test_every_query_is_a_line_of_json",
        "contracts/test_engines",
        "contracts/test_exporters",
        "crash",
        "dataset/test_dataset_file::test_a_dataset_in_every_format",
        "dataset/test_dataset_file::test_json_has_words_truths_and_numbers",
        "dataset/test_given_types",
        "engines/test_engines::test_a_worker_that_keeps_memory_lives_on",
        "engines/test_engines::test_a_worker_that_lacks_a_plugin_says_its_name_and_blames_no_image",
        "engines/test_engines::test_the_folder_has_every_kind_of_row_in_it",
        "engines/test_engines::test_neither_its_place_nor_an_end_in_the_middle_of_a_chunk_makes_a_difference",
        "engines/test_engines::test_workers_end_without_a_word_whatever_waits_for_them",
        "engines/test_engines::test_workers_make_no_difference_to_any_byte",
        "engines/test_hosts",
        "exchange/test_colmap",
        "exchange/test_export",
        "exchange/test_hloc",
        "exchange/test_import_colmap",
        "exchange/test_import_npz",
        "exchange/test_notebook_file::test_a_file_of_protocol_2_takes_the_memory_of_one_image",
        "exchange/test_row_groups::test_a_signal_in_the_middle_leaves_the_old_file",
        "exchange/test_row_groups::test_an_export_is_the_same_bytes_on_any_number_of_cores",
        "exchange/test_row_groups::test_the_bytes_are_those_of_one_writer",
        "images/test_damage::test_damaged_pictures_are_refused_or_kept_and_counted",
        "images/test_decoder",
        "images/test_image_file::test_messages_do_not_depend_on_process_order_or_log_level",
        "images/test_image_file::test_too_little_memory",
        "images/test_image_folder",
        "images/test_locate",
        "images/test_parquet::test_files_of_the_real_tools",
        "images/test_parquet::test_shards_are_their_own_dataset",
        "images/test_tar::test_a_store_of_shards",
        "images/test_zip::test_a_file_that_is_not_there_is_passed_over",
        "images/test_zip::test_a_folder_and_a_zip_of_it_give_the_same_payloads",
        "images/test_zip::test_init_without_a_dataset_then_repair_and_move_to_a_folder",
        "images/test_zip::test_only_members_of_another_crc_are_read_again",
        "maintenance/test_check_files::test_a_file_whose_reader_dies_is_reported_alone_and_damaged_only_if_it_crashed",
        "maintenance/test_check_files::test_a_gigabyte_has_workers_only_where_it_is_decoded",
        "maintenance/test_check_files::test_a_verb_ends_where_its_cluster_is_not_there",
        "maintenance/test_check_files::test_merge_takes_the_same_with_any_number_of_workers",
        "maintenance/test_check_files::test_partitions_are_read_once_to_check_and_to_copy_them",
        "maintenance/test_check_files::test_rebuild_makes_the_same_catalog_with_any_number_of_workers",
        "maintenance/test_check_files::test_results_come_in_the_order_of_the_files",
        "maintenance/test_check_files::test_verify_finds_the_same_with_any_number_of_workers",
        "maintenance/test_merge",
        "maintenance/test_prune",
        "maintenance/test_rebuild",
        "maintenance/test_recover::test_a_damaged_one_is_recomputed",
        "maintenance/test_recover::test_a_model_without_a_record_is_adopted",
        "maintenance/test_recover::test_a_partition_without_a_record_is_adopted",
        "maintenance/test_recover::test_one_of_an_unknown_chunk_is_left_alone",
        "maintenance/test_verify",
        "maintenance/test_vet",
        "pipeline/test_compression",
        "pipeline/test_finished_blocks",
        "pipeline/test_fit_run",
        "pipeline/test_fits_side_by_side",
        "pipeline/test_forecast",
        "pipeline/test_index_stages",
        "pipeline/test_ingest",
        "pipeline/test_intake",
        "pipeline/test_large_images",
        "pipeline/test_removed",
        "pipeline/test_tasks",
        "pipeline/test_terms::test_what_is_done_for_a_run_that_is_over_ends",
        "pipeline/test_variants",
        "plugins",
        "query/test_duplicates",
        "query/test_exact::test_columns_of_the_dataset_from_an_earlier_store",
        "query/test_exact::test_parquet_holds_what_duckdb_says",
        "query/test_four_bits",
        "query/test_index_search",
        "query/test_kept_copy::test_a_commit_of_another_process_is_seen_whatever_the_times_of_the_file",
        "query/test_kept_copy::test_threads_share_a_copy",
        "query/test_load",
        "query/test_lookup::test_partitions_make_room_for_each_other_where_few_files_may_be_open",
        "query/test_sql::test_a_snapshot_answers_as_sql_does",
        "query/test_sql::test_an_endless_question_can_be_interrupted",
        "query/test_sql::test_before_anything_was_run",
        "query/test_sql::test_without_keypoints",
        "reliability",
        "stages/test_codebook::test_words_are_nearly_always_the_nearest",
        "stages/test_covariance::test_a_store_tells_the_solver_and_why_it_changed",
        "stages/test_project::test_it_is_what_scikit_learn_makes_of_them",
        "stages/test_project::test_products_of_blocks_have_the_bits_of_one_product_on_each_kernel_of_openblas",
        "storage/test_lock::test_those_who_ask_do_not_keep_a_writer_out",
        "storage/test_outside",
        "system/test_memory::test_freed_memory_is_used_again",
        "test_doc_code",
        "test_parity",
        "test_start",
        "test_warm_workers",
    }
)


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start one test process more than there are cores, since tests wait for processes: quick ones don't."""
    if "not slow" in config.option.markexpr or "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return all_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        module, all_slow = module_of(item.path)
        if all_slow or f"{module}::{item.name.partition('[')[0]}" in SLOW:
            item.add_marker(pytest.mark.slow)


@cache
def module_of(path: Path) -> tuple[str, bool]:
    """Return the name of a test module in `SLOW`, and whether all of it is slow."""
    module = path.relative_to(Path(__file__).parent).with_suffix("")
    return module.as_posix(), not SLOW.isdisjoint(place.as_posix() for place in (module, *module.parents))


@pytest.fixture(scope="session", autouse=True)
def listening() -> None:
    """Hear Ctrl-C, and so do the processes that tests start: a shell lets what it runs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def near_sandbox() -> Iterator[None]:
    """Do the sandbox's jobs in this process: few tests are about its limits; the long form starts it as users do."""
    with pytest.MonkeyPatch.context() as patch:
        if not LONG:
            patch.setattr("featurestore.maintenance.sandbox.subprocess", NearSandbox)
        yield


@pytest.fixture
def cold_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the sandbox as users do, for a test of its process, its memory limit or its environment."""
    monkeypatch.setattr("featurestore.maintenance.sandbox.subprocess", subprocess)


@pytest.fixture(scope="session", autouse=True)
def warm_workers() -> Iterator[None]:
    """Let the workers of engines start in milliseconds; the long form starts them as users do."""
    with nullcontext() if LONG or sys.platform != "linux" else forking(Nursery(connect_nursery)):
        yield


@pytest.fixture
def cold_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers as users do, for a test of their start or of what they inherit."""
    monkeypatch.setattr("joblib.externals.loky.backend.fork_exec.fork_exec", cold)


@pytest.fixture(scope="session", autouse=True)
def recycled_instances() -> Iterator[None]:
    """Use DuckDB instances again, which many tests make by the dozen; the long form makes new ones."""
    with pytest.MonkeyPatch.context() as patch:
        if not LONG:
            patch.setattr(duckdb, "connect", Instances().connect)
        yield


@pytest.fixture(scope="session", autouse=True)
def rare_collections() -> None:
    """Leave what was imported out of garbage collections."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Samples:
    """The sample images and their dataset CSV."""

    images: Path
    dataset: Path


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """26 small images in a folder, and their CSV. Not to be changed."""
    folder = once(tmp_path_factory, "samples", make_small_samples)
    return Samples(folder, folder / "dataset.csv")


def make_small_samples(folder: Path, *, long_side: int = LONG_SIDE) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.cli.samples.LONG_SIDE", long_side)
        make_samples(folder)


def make_store(path: Path, samples: Samples, *, chunk_size: int = 8) -> FeatureStore:
    """Make a store of the samples, with a recipe for small images, in which nothing was run yet."""
    store = FeatureStore.create(path, images=samples.images, dataset=samples.dataset, chunk_size=chunk_size)
    for stage, values in RECIPE.items():
        configure(store, stage, **values)
    return store


@pytest.fixture(scope="session")
def finished(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 with every stage done. Not to be changed: see `store`."""
    made = once(tmp_path_factory, "finished", lambda folder: make_store(folder / "store", samples).run(workers=0))
    # A copy for each test process, since who reads a store may lock it.
    return copy(FeatureStore(made / "store"), tmp_path_factory.mktemp("finished") / "store")


@pytest.fixture
def store(finished: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store that the test may change."""
    return copy(finished, tmp_path / "store")


@pytest.fixture(scope="session")
def begun(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 in which nothing was run yet. Not to be changed: see `fresh`."""
    made = once(tmp_path_factory, "begun", lambda folder: make_store(folder / "store", samples))
    return copy(FeatureStore(made / "store"), tmp_path_factory.mktemp("begun") / "store")


@pytest.fixture
def fresh(begun: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store without any run, which the test may change."""
    return copy(begun, tmp_path / "fresh")


@pytest.fixture(scope="session")
def thirteen(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of thirteen small pictures in chunks of 5, with every stage done. Not to be changed; nor are they."""

    def make(folder: Path) -> None:
        make_small(folder / "images")
        small_store(folder / "store", folder / "images").run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "thirteen", make) / "store")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of three pictures, with every stage done, and the folder ``images`` beside it. Not to be changed."""
    return FeatureStore(copied(tmp_path_factory, "tiny", tiny_store) / "store")


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """The optional folder of test images beside the checkout; a test that needs it is skipped where it is absent."""
    default = Path(__file__).parent.parent.parent / "shared" / "images"
    folder = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", default))
    if not folder.is_dir():
        pytest.skip(f"no test images at {folder}; FEATURESTORE_TEST_IMAGES can name another folder")
    return folder
