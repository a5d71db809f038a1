"""The reference pages of the documentation site, made from the program, the recipe's options and the public names."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import click
import tomlkit

from featurestore import FeatureStore, Images, plugins
from featurestore.cli.program import cli
from featurestore.config import StoreSettings
from featurestore.stages import EXTRACTORS, STAGES

DOORS = ("query", "matching", "maintenance", "pipeline", "exchange", "progress", "drawing")  # rooms that make results
FLAGS = {
    "policy": "It decides which images are accepted: a change makes nothing stale.",
    "stored": "It says how results are stored: a change makes nothing stale, and counts for new partitions.",
}


def cli_page() -> str:
    """Return the page of every command, with its usage, arguments and options."""
    context = click.Context(cli, info_name="featurestore")
    parts = ["# Commands\n", f"{_help_of(cli)}\n", "`featurestore COMMAND --help` says the same in a terminal.\n"]
    parts += ["| command | |\n|---|---|"]
    parts += [f"| [`{name}`](#{name}) | {command.get_short_help_str(200)} |" for name, command in _commands()]
    parts += [_command(name, command, context) for name, command in _commands()]
    return "\n".join(parts) + "\n"


def _commands() -> list[tuple[str, click.Command]]:
    return sorted(cli.commands.items())


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["featurestore", name, *command.collect_usage_pieces(context)])
    rows = [_option(param, context) for param in command.get_params(context) if isinstance(param, click.Option)]
    table = "\n".join(["| option | |", "|---|---|", *rows])
    return f"\n## {name}\n\n```\n{usage}\n```\n\n{_help_of(command)}\n\n{table}\n"


def _help_of(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return _escaped(text.partition("\f")[0].strip())


def _option(param: click.Option, context: click.Context) -> str:
    record = param.get_help_record(context)
    names, text = record if record else (", ".join(param.opts), "")
    return f"| `{names}` | {_cell(_escaped(text))} |"  # a bar within code ends no cell here


def recipe_page() -> str:
    """Return the page of every table and key of ``featurestore.toml``."""
    parts = [
        "# The recipe\n",
        "`featurestore.toml` in a store says what is computed, and `init` writes it with these comments. A key that is",
        "absent has its default. Except where a note says otherwise, another value makes a new variant: the stage and",
        "all later ones are computed again, and the old results are kept until `prune`.\n",
        "An unknown key, a value of another type or out of range is refused, with the key's name.\n",
        _table("store", StoreSettings),
    ]
    for name in STAGES.names():
        stage = STAGES.find(name)
        parts.append(_table(name, stage))
        for field in dataclasses.fields(stage):
            if "among" in field.metadata:
                parts += [_table(f"{name}.{plugin}", EXTRACTORS.find(plugin)) for plugin in _with_own_tables()]
    return "\n".join(parts) + "\n"


def _with_own_tables() -> list[str]:
    return [name for name in EXTRACTORS.names() if EXTRACTORS.find(name).table in ("", None, name)]


def _table(name: str, cls: type[Any]) -> str:
    first = inspect.getdoc(cls) or ""
    rows = [_row(field, get_type_hints(cls)[field.name]) for field in dataclasses.fields(cls)]
    lines = [f"\n## [{name}] {{#{name.replace('.', '-')}}}\n", first.partition("\n\n")[0].replace("``", "`") + "\n"]
    if not rows:
        return "\n".join([*lines, "It has no keys.\n"])
    return "\n".join([*lines, "| key | default | |", "|---|---|---|", *rows]) + "\n"


def _row(field: dataclasses.Field[Any], hint: Any) -> str:
    meta = field.metadata
    text = str(meta["doc"]).removeprefix("policy: ")
    notes = [note for flag, note in FLAGS.items() if meta.get(flag)]
    if get_args(hint) and all(isinstance(value, (str, int)) for value in get_args(hint)):
        notes.insert(0, "One of " + ", ".join(f"`{value}`" for value in get_args(hint)) + ".")
    elif meta.get("low") is not None and meta.get("high") is not None:
        notes.insert(0, f"From {meta['low']:,} to {meta['high']:,}.")
    elif meta.get("low") is not None:
        notes.insert(0, f"At least {meta['low']:,}.")
    if meta.get("initially") is not None:
        notes.append(f"In new stores `{_toml(meta['initially'])}`.")
    sentence = text if not notes else f"{text.rstrip('.')}. " + " ".join(notes)
    return f"| `{field.name}` | `{_toml(_default(field))}` | {_cell(_escaped(sentence))} |"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return getattr(field.default_factory, "name", None) or field.default_factory()


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    return "{}" if value == {} else tomlkit.item(value).as_string()


def api_page() -> str:
    """Return the page of the public classes, for mkdocstrings to fill in."""
    parts = [
        "# Python\n",
        "Everything public is `FeatureStore`, `Images`, what their methods return, and the errors.\n",
    ]
    parts += [_entry("featurestore.api.store.FeatureStore"), _entry("featurestore.api.images.Images")]
    parts.append("\n## What methods return\n")
    parts += [_entry(path, level=3) for path in results()]
    parts += ["\n## Applications\n", "What joins several questions: `from featurestore.apps import pairs`.\n"]
    parts += [_entry(path, level=3) for path in _apps()]
    return "\n".join(parts) + "\n"


def results() -> list[str]:
    """Return where each class is defined that a public method returns."""
    return sorted({f"{found.__module__}.{found.__name__}" for found in _returned()})


def _returned() -> Iterator[type[Any]]:
    rooms = [importlib.import_module(f"featurestore.{door}") for door in DOORS]
    for owner in (FeatureStore, Images):
        for _, method in inspect.getmembers(owner, inspect.isroutine):
            if not method.__name__.startswith("_"):
                for name in re.findall(r"[A-Z]\w+", str(inspect.signature(method).return_annotation)):
                    found = [getattr(room, name) for room in rooms if name in dir(room)]
                    yield from (one for one in found[:1] if inspect.isclass(one))


def _apps() -> list[str]:
    apps = importlib.import_module("featurestore.apps")
    found = (getattr(apps, name) for name in dir(apps) if not name.startswith("_"))
    ours = [one for one in found if str(getattr(one, "__module__", "")).startswith("featurestore.apps.")]
    return [f"{one.__module__}.{one.__name__}" for one in ours]


def errors_page() -> str:
    """Return the page of the errors, for mkdocstrings to fill in."""
    return (
        "# Errors\n\nEvery error that featurestore raises on purpose is a `FeatureStoreError`, and its message says "
        "what happened, why, and what to do next. The [exit codes](exit-codes.md) are those of the command line.\n\n"
        "::: featurestore.errors\n    options:\n      show_root_heading: false\n      heading_level: 2\n"
        "      members_order: source\n      show_if_no_docstring: false\n"
    )


def plugins_page() -> str:
    """Return the page of the names that plug-ins build on, for mkdocstrings to fill in."""
    parts = ["# Names for plug-ins\n", "`from featurestore.plugins import ...`; [plug-ins](plugins.md) has examples.\n"]
    for name in plugins.__all__:
        found = getattr(plugins, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            parts.append(_entry(f"{found.__module__}.{found.__name__}"))
    return "\n".join(parts) + "\n"


def _entry(path: str, level: int = 2) -> str:
    return f"\n::: {path}\n    options:\n      heading_level: {level}\n"


def _escaped(text: str) -> str:
    """Return text whose brackets and asterisks Markdown leaves alone."""
    return re.sub(r"([*\[\]])", r"\\\1", text.replace("<", "&lt;"))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
