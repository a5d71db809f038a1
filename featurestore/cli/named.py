"""The store of a verb: its first argument, --store, the environment or the current folder; and completion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from featurestore.errors import FeatureStoreError

CONFIG = "featurestore.toml"  # what makes a folder a store
VARIABLE = "FEATURESTORE_STORE"
MOST = 100  # completions
NAMED = ("repair",)  # options with which a verb changes more than `run` does: its store is always named


class StoreVerb(click.Command):
    """A verb that runs or reads: without a store as its first argument, it takes the usual one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the option ``--store``."""
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if parameter.name == "store":
                parameter.metavar = "[STORE]"
        self.params.append(
            click.Option(
                ["--store", "named"],
                type=click.Path(path_type=Path),
                expose_value=False,
                help=f"The store, instead of STORE; default: ${VARIABLE}, or the current folder if it is one.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the usual store before the arguments, unless the first of them is a store."""
        found, _, _ = self.make_parser(ctx).parse_args(list(args))
        first, named = found.get("store"), found.get("named")
        if named is not None:
            args = [_as_argument(str(named)), *args]
        elif not (isinstance(first, str) and _is_store(first)) and not any(found.get(name) for name in NAMED):
            usual = os.environ.get(VARIABLE) or (os.curdir if _is_store(os.curdir) else None)
            args = [_as_argument(usual), *args] if usual is not None else args
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "store":
                raise
            raise click.UsageError(
                "no store is named; give its folder first, or --store, or work in it, or set $FEATURESTORE_STORE"
                if not any(found.get(name) for name in NAMED)
                else "what repairs a store names it: give its folder first, or --store",
                ctx,
            ) from None


def _is_store(path: str) -> bool:
    return os.path.isfile(os.path.join(path, CONFIG))  # noqa: PTH113, PTH118 - any text, of which Path refuses some


def _as_argument(path: str) -> str:
    return os.path.join(os.curdir, path) if path.startswith("-") else path  # noqa: PTH118


def complete_stage(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete a stage."""
    from featurestore.stages import STAGES

    return [CompletionItem(name) for name in STAGES.names() if name.startswith(begun)]


def complete_image(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of an image of the store."""
    found = _ask(context, "SELECT filename FROM images WHERE starts_with(filename, $begun) LIMIT $most", begun=begun)
    return [CompletionItem(name) for name in found]


def complete_view(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a view, as the last word of a query."""
    before, space, word = begun.rpartition(" ")
    views = _ask(context, "SHOW TABLES")
    return [CompletionItem(f"{before}{space}{view}") for view in views if word and view.startswith(word)]


def _ask(context: click.Context, query: str, **parameters: str) -> list[str]:
    """Return the first column of an answer; nothing if the store can't be asked."""
    from featurestore.api import FeatureStore

    path = context.params.get("store")
    try:
        limit = {"most": MOST} if "$most" in query else {}
        return [str(row[0]) for row in FeatureStore(path).sql(query, **parameters, **limit)] if path else []
    except (FeatureStoreError, OSError):
        return []
