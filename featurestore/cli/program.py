"""The command line: every verb parses, calls one method of `FeatureStore`, and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from featurestore._version import __version__
from featurestore.cli.apps import VERBS as APPS
from featurestore.cli.common import JSON, STORE, answer, as_json, engine_options, open_store, stoppable, without_python
from featurestore.cli.exchange import VERBS as EXCHANGE
from featurestore.cli.log import with_log
from featurestore.cli.maintain import VERBS as UPKEEP
from featurestore.cli.named import StoreVerb, complete_stage
from featurestore.cli.plot import VERBS as PLOT
from featurestore.cli.read import VERBS as ASK
from featurestore.cli.search import VERBS as SEARCH
from featurestore.cli.sql import VERBS as SQL
from featurestore.cli.status import VERBS as STATUS
from featurestore.cli.tune import VERBS as TUNE
from featurestore.errors import FeatureStoreError
from featurestore.system import (
    Interrupt,
    command_line,
    interruptible,
    keep_freed_memory,
    reason_unreadable,
    shown,
)

if TYPE_CHECKING:
    from featurestore.api import FeatureStore

MOST_CHUNKS = 1_000_000  # in --chunks
DIGITS = 18  # of a chunk number


class _Chunks(click.ParamType[frozenset[int]]):
    """Chunk numbers: ``0-3,7``."""

    name = "RANGES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        if isinstance(value, frozenset):
            return value
        found: set[int] = set()
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            if len(first) > DIGITS or len(last) > DIGITS:
                self.fail("no store has a chunk with so long a number", param, ctx)
            if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
                self.fail(f"{part!r} is not a chunk or a range of chunks; write them like 0-3,7", param, ctx)
            numbers = range(int(first), int(last or first) + 1)
            if len(found) + len(numbers) > MOST_CHUNKS:
                self.fail(
                    f"{part!r}: at most {MOST_CHUNKS:,} chunks can be named; leave --chunks out for all", param, ctx
                )
            found.update(numbers)
        return frozenset(found)


class _Type(click.ParamType[tuple[str, str]]):
    """A column and its type: ``year=BIGINT``."""

    name = "COLUMN=TYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        column, _, kind = str(value).rpartition("=")
        if not column:
            self.fail(f"{value!r} names no column and type; write them like year=BIGINT", param, ctx)
        return column, kind.strip().upper()


_TYPES = click.option(
    "--type",
    "types",
    type=_Type(),
    multiple=True,
    help="VARCHAR, BIGINT, DOUBLE, BOOLEAN, DATE or TIMESTAMP; repeatable.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="featurestore")
def cli() -> None:
    """A database-backed store of local image descriptors.

    A folder of images and a dataset.csv become, image by image, SIFT descriptors, a PCA of the train images, and every
    image's 1800 descriptors of largest norm as 64 bytes each. An interrupted run continues when you run it again.
    """


@cli.command(short_help="Make a store and read its dataset.")
@STORE
@click.option(
    "--images",
    required=True,
    type=click.Path(),
    help="A folder of images, a zip, tar or Parquet, or s3://bucket/prefix.",
)
@click.option("--dataset", type=click.Path(path_type=Path), help="A CSV, Parquet or JSON; without it DIR is scanned.")
@click.option("--filename-column", default="filename", show_default=True, help="The column of paths below DIR.")
@click.option("--split", default="subset", show_default=True, help="SQL over the columns that gives 'train' or 'test'.")
@click.option("--chunk-size", default=1000, show_default=True, help="Images in a chunk.")
@click.option("--partitions", default="", help="s3://bucket/prefix, instead of the folder STORE, for partitions.")
@click.option("--index", is_flag=True, help="Add the stages of an index.")
@_TYPES
def init(store: Path, types: tuple[tuple[str, str], ...], index: bool, **options: Any) -> None:
    """Make the store STORE, a new folder, and read the dataset."""
    from featurestore.api import FeatureStore

    with stoppable("no store was made"):
        made = FeatureStore.create(store, types=dict(types), **options)
        if index:
            made.index()
    _warn(made.ingested.warnings if made.ingested else [])
    click.echo(f"{made.path}: {_ingest_text(made.ingested)}")
    from featurestore.cli.text import proposal_text

    click.echo(proposal_text(made.plan(sample=True)))
    click.echo(f"next: {command_line('run', store)}")


@cli.command(short_help="Read the dataset again.")
@STORE
@click.option("--dataset", type=click.Path(path_type=Path), help="Another file than the one in featurestore.toml.")
@click.option("--yes", is_flag=True, help="Agree to remove many images, or to move some to another subset.")
@_TYPES
def ingest(store: Path, dataset: Path | None, types: tuple[tuple[str, str], ...], yes: bool) -> None:
    """Read the dataset again: new rows become new chunks, known ones are updated, images without a row are removed.

    The results of a removed image are kept, and the image comes back with its row.
    """
    with stoppable(f"the dataset may not have been read; to read it: {command_line('ingest', store)}"):
        _ingest(open_store(store), dataset, yes=_agreed(yes), types=dict(types))


def _ingest(store: FeatureStore, dataset: Path | None, **options: Any) -> None:
    report = store.ingest(dataset, quiet=False, **options)
    _warn(report.warnings)
    click.echo(_ingest_text(report))


class _Run(StoreVerb):
    """The verb whose help lists the stages, with those of installed plug-ins."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from featurestore.stages import STAGES

        self.help = f"Compute what is missing. STAGE is one or more of {' '.join(STAGES.names())}; default: all stages."
        super().format_help_text(ctx, formatter)


@cli.command(cls=_Run, short_help="Compute what is missing.")
@STORE
@click.argument("stages", nargs=-1, metavar="[STAGE]...", shell_complete=complete_stage)
@click.option("--chunks", type=_Chunks(), help="Only these chunks, for chunk stages: 0-3,7.")
@engine_options(workers="Worker processes; default: all cores. 0 works in this process.")
@click.option(
    "--max-memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="Memory for large pictures that are extracted at the same time; default: 90 % of what is free.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and the cost.")
@click.option("--retry-failed", is_flag=True, help="Try failed images again.")
@click.option(
    "--status", "statuses", metavar="STATUSES", help="With --retry-failed: only these, like missing,unreadable."
)
@click.option("--check-images", is_flag=True, help="Read the image files again, and extract replaced ones again.")
@click.option("--partial", is_flag=True, help="Fit a model although chunks are missing, or most images failed.")
@click.option("--update", is_flag=True, help="Continue fitting the models with the images that are new to them.")
@click.option("--yes", is_flag=True, help="Answer yes to questions about stale, removed or costly results.")
@click.option("--ingest", is_flag=True, help="Read the dataset again first.")
@click.option("--quiet", is_flag=True, help="Show no progress and no summaries.")
@click.option(
    "--progress",
    type=click.Choice(["bar", "lines", "json", "none"]),
    help="On stderr: a bar, a line every 30 seconds, or events in JSON; default: a bar in a terminal, else lines.",
)
@JSON
def run(store: Path, stages: tuple[str, ...], dry_run: bool, statuses: str | None, **options: Any) -> None:
    """Compute what is missing."""
    if statuses is not None:
        if not options["retry_failed"]:
            raise click.UsageError("--status goes with --retry-failed")
        options["retry_failed"] = [status.strip() for status in statuses.split(",")]
    if options["quiet"] and options["progress"]:
        raise click.UsageError("--quiet shows no progress; leave out one of --quiet and --progress")
    if dry_run and options["ingest"]:
        raise click.UsageError("--dry-run changes nothing; leave out --ingest")
    with stoppable(f"finished work is kept. To continue: {command_line('run', store)}"):
        if dry_run:
            _print_plan(open_store(store), stages, options)
        else:
            keep_freed_memory()
            _run(open_store(store), stages, options)


def _print_plan(store: FeatureStore, stages: tuple[str, ...], options: dict[str, Any]) -> None:
    from featurestore.cli.table import find_screen
    from featurestore.cli.text import last_word, plan_text

    asked = {name: options[name] for name in ("chunks", "retry_failed", "check_images", "partial", "update", "workers")}
    estimates = store.plan(*stages, **asked, sample=True)
    if options["json_wanted"]:
        answer(as_json({"stages": [estimate.as_dict() for estimate in estimates]}))
    else:
        screen = find_screen()
        word = () if estimates else screen.wrapped([last_word(store, done=False)])
        answer(plan_text(estimates, screen) if estimates else "\n".join(word))


def _run(store: FeatureStore, stages: tuple[str, ...], options: dict[str, Any]) -> None:
    options["yes"] = _agreed(options["yes"])
    if options.pop("json_wanted"):
        _run_for_programs(store, stages, options)
        return
    if options.pop("ingest"):  # here, so that its summary is printed before the run
        _ingest(store, None, yes=options["yes"])
    done = store.run(*stages, **options)
    if not options["quiet"]:
        from featurestore.cli.table import find_screen
        from featurestore.cli.text import last_word

        click.echo("\n".join(find_screen().wrapped([last_word(store, done=bool(done))])))


def _run_for_programs(store: FeatureStore, stages: tuple[str, ...], options: dict[str, Any]) -> None:
    """Run, with progress on stderr and one JSON value on stdout."""
    from featurestore.cli.text import failed_counts
    from featurestore.progress import usual_progress

    if not options["quiet"]:  # quiet in Python: the summaries are in the value
        options.update(quiet=True, progress=options["progress"] or usual_progress())
    done = store.run(*stages, **options)
    failed = failed_counts(store)
    answer(as_json({"stages": [summary.as_dict() for summary in done], "failed": failed}))


@cli.command(short_help="Run the whole job on sample images.")
@click.argument("folder", default="featurestore-demo", type=click.Path(path_type=Path), metavar="[DIR]")
def demo(folder: Path) -> None:
    """Run the whole job on sample images, in DIR (default: featurestore-demo)."""
    from featurestore.cli.demo import run_demo

    run_demo(folder)


@cli.command("help", short_help="Show the help of a verb.")
@click.argument("verb", required=False)
@click.pass_context
def help_(context: click.Context, verb: str | None) -> None:
    """Show the help of VERB, or of the program."""
    parent = context.parent
    assert parent is not None
    command = cli.get_command(context, verb) if verb is not None else cli
    if command is None:
        raise click.UsageError(f"there is no verb {verb!r}; featurestore help lists them")
    answer(command.get_help(parent if verb is None else click.Context(command, info_name=verb, parent=parent)))


for verb in (*STATUS, *SQL, *ASK, *SEARCH, *APPS, *TUNE, *PLOT, *EXCHANGE, *UPKEEP):
    cli.add_command(verb)
for verb in cli.commands.values():
    with_log(verb)


def main() -> NoReturn:
    """Run the command line; a `FeatureStoreError` is one line and no traceback."""
    with interruptible() as interrupt:
        sys.exit(_exit_code(interrupt))


def _exit_code(interrupt: Interrupt) -> int:
    try:
        return int(cli.main(standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"error: {_one_line(_usage(error))}", err=True)
        return error.exit_code
    except FeatureStoreError as error:
        click.echo(f"error: {_one_line(without_python(' '.join(str(error).split())))}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return interrupt.exit_code
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that flushing it at exit can't fail
        return 0
    except Exception as error:
        if interrupt.signal is not None and isinstance(error, RuntimeError):
            return interrupt.exit_code  # DuckDB's error for an interrupt during a query
        reason = reason_unreadable(error) or (error.strerror if isinstance(error, OSError) else None)
        if reason is None:
            raise
        about = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        click.echo(f"error: {_one_line(f'{about}{reason}')}; fix that, then run the same command again", err=True)
        return 1


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    verb = f" {context.info_name}" if context is not None and context.parent is not None else ""
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{said}{' See' if said.endswith('?') else '; see'} featurestore{verb} --help"


def _one_line(text: str) -> str:
    return " ".join(shown(text).split())


def _agreed(yes: bool) -> bool | Callable[[str], bool]:
    return yes or (_ask if sys.stdin.isatty() else False)


def _ask(question: str) -> bool:
    return click.confirm(f"{question}. Continue?", err=True)


def _ingest_text(report: Any) -> str:
    from featurestore.cli.text import ingest_text

    return ingest_text(report)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
