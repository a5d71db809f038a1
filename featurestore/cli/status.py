"""The verb status, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from featurestore.cli.common import JSON, STORE, UNTRUSTED, answer, as_json, open_store
from featurestore.cli.named import StoreVerb

SECONDS = 2.0  # from one look to the next
HOME, TO_END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"  # of a terminal: go to the corner, and clear


@click.command(cls=StoreVerb, short_help="Show what is done and what is missing.")
@STORE
@click.option("--watch", "watched", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@JSON
@UNTRUSTED
def status(store: Path, watched: bool, json_wanted: bool, untrusted: bool) -> None:
    """Show each stage: chunks done, images by status, what is missing and why, and how far a run is that is at work."""
    if watched and json_wanted:
        raise click.UsageError("--watch is for the screen; leave out one of --watch and --json")
    from featurestore.cli.table import find_screen
    from featurestore.cli.text import status_text

    opened = open_store(store, untrusted=untrusted)
    if watched:
        watch(lambda: status_text(opened.status(), find_screen()), wait=lambda: time.sleep(SECONDS))
    elif json_wanted:
        answer(as_json(opened.status().as_dict()))
    else:
        answer(status_text(opened.status(), find_screen()))


def watch(text: Callable[[], str], *, wait: Callable[[], None]) -> None:
    """Print a text again and again, in place where stdout is a terminal, until Ctrl-C."""
    in_place = sys.stdout.isatty()
    try:
        click.echo(HOME + BELOW if in_place else "", nl=False)
        while True:
            found = text()
            if in_place:  # no line is cleared before it is written, so that nothing flickers
                found = HOME + "".join(f"{line}{TO_END_OF_LINE}\n" for line in found.splitlines()) + BELOW
            answer(found)
            wait()
    except KeyboardInterrupt:
        click.echo()


VERBS = (status,)
