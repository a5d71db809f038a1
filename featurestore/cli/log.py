"""``--log-level`` and ``--log-file`` of every verb: where the log records of the package go."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from featurestore.errors import FeatureStoreError, OutputError
from featurestore.system import is_file, located, shown

CONFIG = "featurestore.toml"  # what makes a folder a store
LOG = logging.getLogger("featurestore.cli")
LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(process)d %(name)s: %(message)s"


class _OneLine(logging.Formatter):
    """Formats a record as one line, with the time in UTC."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(FORMAT, "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(shown(super().format(record)).split())


class _ToStderr(logging.StreamHandler[Any]):
    """Writes records to stderr, above a progress bar if there is one."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.addFilter(lambda record: not getattr(record, "shown", False))  # the verb has printed it

    def emit(self, record: logging.LogRecord) -> None:
        bars: AbstractContextManager[Any] = nullcontext()
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            bars = tqdm.external_write_mode(file=sys.stderr)
        with bars:
            super().emit(record)


class _ToFile(logging.FileHandler):
    """Appends records to a file; says once if that fails, and lets the verb go on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if not self.failed:
            reason = sys.exc_info()[1]
            click.echo(f"warning: {self.baseFilename} is incomplete: {shown(str(reason))}", err=True)
        self.failed = True

    def close(self) -> None:
        with suppress(OSError):  # of what could not be written: that was said already
            super().close()


def with_log(verb: click.Command) -> click.Command:
    """Give a verb the options ``--log-level`` and ``--log-file``."""
    run = verb.callback
    assert run is not None
    verb.callback = _logged(run)
    levels = click.Choice(LEVELS, case_sensitive=False)
    verb.params += [
        click.Option(["--log-level"], type=levels, help="Log what happens, to stderr.  [with --log-file: info]"),
        click.Option(["--log-file"], type=click.Path(path_type=Path), help="Append the log to a file instead."),
    ]
    return verb


def _logged(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def logged(*args: Any, log_level: str | None, log_file: Path | None, **options: Any) -> Any:
        with log_records(log_level, log_file):
            return run(*args, **options)

    return logged


@contextmanager
def log_records(level: str | None, path: Path | None) -> Iterator[None]:
    """Write the package's log records to ``path``, or to stderr, for the length of a block; by default nowhere.

    Raises:
        OutputError: the file can't be opened.
    """
    if level is None and path is None:
        yield
        return
    handler = _handler(path)
    handler.setFormatter(_OneLine())
    package = logging.getLogger("featurestore")
    before = package.level
    package.setLevel((level or "info").upper())
    package.addHandler(handler)
    try:
        yield
    except FeatureStoreError as error:
        LOG.error("%s: %s", type(error).__name__, error)
        raise
    except KeyboardInterrupt:
        LOG.warning("interrupted")
        raise
    finally:
        package.removeHandler(handler)
        package.setLevel(before)
        handler.close()


def _handler(path: Path | None) -> logging.Handler:
    if path is None:
        return _ToStderr()
    found = located(path, "the log")
    for folder in found.parents:
        if is_file(folder / CONFIG):  # appending to the catalog would destroy it
            raise OutputError(f"the log {found} would lie in the store {folder}; choose another --log-file")
    try:
        return _ToFile(found, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"the log {found} can't be written: {error.strerror}; choose another --log-file") from error
