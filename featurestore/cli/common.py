"""Code that the verbs of the command line share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from featurestore.system import must_arrive

if TYPE_CHECKING:
    from featurestore.api import FeatureStore

P = ParamSpec("P")
R = TypeVar("R")

STORE = click.argument("store", type=click.Path(path_type=Path))
UNTRUSTED = click.option(
    "--untrusted",
    is_flag=True,
    help="The store comes from an untrusted source: check every file, ignore those that fail.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write a picture: .png, .jpg or .webp.",
)
FORCE = click.option("--force", is_flag=True, help="With --output: replace an existing file.")
IN_PYTHON = re.compile(r" \((?:force=True|form='csv'|in Python:? \w+(?:=VALUE|\(path\)))\)")  # what errors say for both
JSON = click.option("--json", "json_wanted", is_flag=True, help="As JSON.")
SCHEDULER = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a Dask cluster: tcp://HOST:8786 or the scheduler's FILE.json; default: $DASK_SCHEDULER_ADDRESS.",
)


def engine_options(*, workers: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that adds --workers, with this help, --engine and --scheduler to a verb."""

    def decorate(verb: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(verb)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            if options["workers"] is not None and (options["engine"] == "dask" or options["scheduler"]):
                raise click.UsageError("--workers is for this machine; with --engine dask the cluster has them")
            return verb(*args, **options)

        n_workers = click.option("--workers", type=click.IntRange(0), help=workers)
        engine = click.option(
            "--engine", metavar="NAME", help="Where work runs: local (processes), inline, dask, or a plug-in's."
        )
        return n_workers(engine(SCHEDULER(checked)))

    return decorate


@contextmanager
def stoppable(what_next: str) -> Iterator[None]:
    """Print what to do next if Ctrl-C or SIGTERM ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"stopped; {what_next}", err=True)
        raise


def without_python(message: str) -> str:
    """Return the message of an error without what people write in Python in place of an option."""
    return IN_PYTHON.sub("", message)


def answer(text: str) -> None:
    """Print a verb's answer; the verb fails if it can't be printed."""
    with must_arrive():
        click.echo(text)


def open_store(path: Path, *, untrusted: bool = False) -> FeatureStore:
    """Open the store of a verb. The import is here so that ``--help`` is quick."""
    from featurestore.api import FeatureStore

    store = FeatureStore.open_untrusted(path) if untrusted else FeatureStore(path)
    for line in store.left_out:
        click.echo(f"warning: {line}", err=True)
    return store


def as_json(value: Any) -> str:
    """Return a report as JSON."""
    import json

    return json.dumps(value, indent=2, default=str, ensure_ascii=False)


def refuse_picture(path: Path, store: Path, *, force: bool) -> None:
    """Refuse a place for a picture before it is drawn.

    Raises:
        UnusablePath, OutputError: no picture can be written there.
    """
    from featurestore.drawing import check_suffix
    from featurestore.system import located, refuse_output

    target = located(path, "a picture")
    check_suffix(target)
    refuse_output(target, store, force=force)


def make_folder(path: Path, store: Path) -> None:
    """Make a new folder for pictures; an empty one will do.

    Raises:
        UnusablePath, OutputError: it can't be made, or has files.
    """
    from featurestore.errors import OutputError
    from featurestore.system import located, refuse_output, writing

    folder = located(path, "a folder of pictures")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a new folder for the pictures")
    refuse_output(folder, store, force=folder.is_dir(), folder=True)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} has files in it; name a new folder for the pictures")
    with writing(folder):
        folder.mkdir(exist_ok=True)
