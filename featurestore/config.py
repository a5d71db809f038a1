"""``featurestore.toml``: the recipe of a store, edited by the user and validated strictly.

A parameter is a field of a frozen dataclass, declared with `option`. This module converts TOML tables to such
dataclasses and back, and knows no particular stage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from featurestore.errors import ConfigError, FormatError
from featurestore.registry import Registry
from featurestore.system import readable

FORMAT = 1
_FILE = "featurestore.toml: "
LARGEST = 1_000_000  # bytes of a recipe; people write some two thousand
T = TypeVar("T")
Tables = Mapping[str, Mapping[str, Any]]
ColumnType = Literal["VARCHAR", "TEXT", "BIGINT", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP"]


def option(
    default: Any,
    doc: str,
    *,
    policy: bool = False,
    late: bool = False,
    stored: bool = False,
    initially: Any = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declare one parameter.

    Args:
        default: its value if the recipe does not set it.
        doc: one line, which becomes the comment in ``featurestore.toml``.
        policy: it decides which images are accepted, and is not part of the identity.
        late: it was added after stores were made without it, and its default is their behaviour. At its default it is
            not part of the identity, so that those stores keep their variants.
        stored: it says how results are stored, and not what they are. It is not part of the identity.
        initially: its value in the recipe of a new store, where that is not the default; see `initial`.
        low: the least allowed value.
        high: the greatest allowed value.
    """
    metadata = {"doc": doc, "policy": policy, "late": late, "stored": stored, "initially": initially}
    metadata |= {"low": low, "high": high}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def chosen(default: type[Any], doc: str, *, among: Registry[Any]) -> Any:
    """Declare a parameter that names a plug-in: its value is an object of the plug-in's dataclass.

    In ``featurestore.toml`` it is a name, and the plug-in's own parameters are a table below: after ``extractor = "x"``
    in ``[extract]`` those of ``[extract.x]``. A plug-in whose ``table`` names another reads that one.

    Args:
        default: the plug-in's class where the recipe does not name one.
        doc: one line, which becomes the comment in ``featurestore.toml``.
        among: the plug-ins that can be named.
    """
    return dataclasses.field(default_factory=default, metadata={"doc": doc, "among": among})


@dataclass(frozen=True)
class StoreSettings:
    """The table ``[store]``: where the images are and how the dataset is read. It is not part of any identity."""

    format: int = option(FORMAT, "the format of this store; leave it as it is", low=1)
    images: str = option("", "the images: a folder, a file of images or s3://...; a relative path starts at the store")
    partitions: str = option("", "where partitions are: in this folder if empty, or s3://bucket/prefix")
    dataset: str = option("", "the dataset, a CSV, Parquet or JSON file; empty: the folder of images is scanned")
    filename_column: str = option("filename", "the dataset's column of paths below the folder of images")
    split: str = option("subset", "SQL over the dataset's columns that gives 'train' or 'test'")
    chunk_size: int = option(1000, "images in a new chunk", low=1, high=1_000_000)
    types: dict[str, ColumnType] = option(dict, 'types of columns, whatever the cells, like { year = "BIGINT" }')


def initial(cls: type[T]) -> T:
    """Return the dataclass ``cls`` with the values that the recipe of a new store has, see `option`."""
    chosen = {f.name: f.metadata["initially"] for f in dataclasses.fields(cls) if "initially" in f.metadata}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in chosen.items() if value is not None})


def read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Read the TOML file as tables.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds a value outside of a table.
        UnreadableFile: the file can't be opened or read.
    """
    try:
        with readable(path), path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        content = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not TOML
        raise ConfigError(f"{path.name} can't be read: {error}. Correct the file, or put back a copy of it") from error
    for name, table in content.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path.name}: {name!r} is outside of a [table]; move it into the table it belongs to")
    return content


def check_format(tables: Tables) -> None:
    """Refuse a store of a newer format.

    Raises:
        FormatError: the store's format is newer than this version's.
    """
    found = tables.get("store", {}).get("format", FORMAT)
    if isinstance(found, int) and found > FORMAT:
        raise FormatError(
            f"this store is of format {found}, and this version of featurestore knows {FORMAT}; upgrade featurestore"
        )


def check_names(tables: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown tables.

    Raises:
        ConfigError: a table's name is unknown.
    """
    allowed = list(known)
    for name in tables:
        if name not in allowed:
            raise ConfigError(
                f"featurestore.toml: unknown table [{name}]; the tables are {', '.join(allowed)}. If it is of a stage "
                "that a package brings, install that into this Python with: pip install"
            )


def build(cls: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """Make the dataclass ``cls`` from a TOML table.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one out of range.
    """
    types = _types(cls)  # type: ignore[arg-type]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    choices = {name: field for name, field in fields.items() if "among" in field.metadata}
    values = {name: _choice(field, table, where=where) for name, field in choices.items()}
    tables = {key for field in choices.values() for key in _tables_of(field, table)}
    for key, value in table.items():
        if key in choices or key in tables:
            continue
        if key not in fields:
            raise ConfigError(f"featurestore.toml: [{where}] has no key {key!r}; its keys are {', '.join(fields)}")
        values[key] = _value(types[key], value, fields[key], f"{_FILE}[{where}] {key}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"featurestore.toml: [{where}] {error}") from error


def _choice(field: dataclasses.Field[Any], table: Mapping[str, Any], *, where: str) -> Any:
    """Return the plug-in that a table names, with its parameters; check the tables of others too."""
    registry, default = field.metadata["among"], field.default_factory
    name = table.get(field.name, getattr(default, "name", None))
    if not isinstance(name, str):
        raise ConfigError(f"{_FILE}[{where}] {field.name} is {name!r}, and should be text in quotes")
    try:
        kind = registry.find(name)
    except ConfigError as error:
        raise ConfigError(f"{_FILE}[{where}] {field.name}: {error}") from error
    own = _own_table(kind)
    for other in _tables_of(field, table):
        parameters = table[other]
        if not isinstance(parameters, dict):
            raise ConfigError(f"{_FILE}[{where}] {other} is a table, and {parameters!r} is not")
        if other != own:
            build(registry.find(other), parameters, where=f"{where}.{other}")
    return build(kind, table.get(own, {}), where=f"{where}.{own}")


def _tables_of(field: dataclasses.Field[Any], table: Mapping[str, Any]) -> list[str]:
    """Return those keys of a table that are tables of plug-ins."""
    known = field.metadata["among"].names()
    return [key for key in table if key in known]


def _own_table(plugin: Any) -> str:
    return str(plugin.table or plugin.name)


def check_given(settings: Mapping[str, Any]) -> None:
    """Check settings given on the command line, before they are written to the recipe.

    Raises:
        ConfigError: a value of the wrong type, or one out of range; the message names the option of the command line.
    """
    types, fields = _types(StoreSettings), {f.name: f for f in dataclasses.fields(StoreSettings)}
    for key, value in settings.items():
        if isinstance(value, dict):
            for name, one in value.items():
                _value(get_args(types[key])[1], one, fields[key], f"--{key.removesuffix('s')} {name}")
        else:
            _value(types[key], value, fields[key], f"--{key.replace('_', '-')}")


@cache  # the annotations are strings, and reading them takes longer than all else in opening a store
def _types(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(kind: Any, value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a table, and {value!r} is not")
        return build(kind, value, where=where.removeprefix(f"{_FILE}[").replace("] ", "."))  # type: ignore[arg-type]
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a table, and {value!r} is not")
        return {key: _value(get_args(kind)[1], one, field, f"{where}.{key}") for key, one in value.items()}
    if get_origin(kind) is Literal:
        if not any(type(value) is type(allowed) and value == allowed for allowed in get_args(kind)):
            raise ConfigError(f"{where} is {value!r}, and can be {' or '.join(map(str, get_args(kind)))}")
        return value
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**63 else value  # larger ones may not fit into a float
    if type(value) is not kind:
        raise ConfigError(f"{where} is {value!r}, and should be {_KINDS[kind]}")
    if type(value) is int and abs(value) >= 2**63:
        raise ConfigError(f"{where} is too large; it has to be below 2^63")
    _check_range(value, field, where)
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


def _check_range(value: Any, field: dataclasses.Field[Any], where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}, and should be a finite number")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = " and ".join(
            t for t in (low is not None and f"at least {low}", high is not None and f"at most {high}") if t
        )
        raise ConfigError(f"{where} is {value}, and should be {bounds}")


def render(tables: Iterable[tuple[str, Any]]) -> str:
    """Return the text of ``featurestore.toml`` for these dataclasses, every key with its comment."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("The recipe of this store. After a parameter changes, its stage and all later stages"))
    document.add(
        tomlkit.comment("are recomputed beside the old results; earlier stages are kept. Unknown keys are errors.")
    )
    for name, values in tables:
        document.add(tomlkit.nl())
        document.add(name, _table(values))
    return tomlkit.dumps(document)


def _table(values: Any) -> Any:
    import tomlkit

    table = tomlkit.table()
    nested = []
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if "among" in field.metadata:
            nested.append((_own_table(value), value))
            value = value.name
        elif dataclasses.is_dataclass(value):
            nested.append((field.name, value))
            continue
        item = tomlkit.item(value) if not isinstance(value, dict) else tomlkit.inline_table()
        if isinstance(value, dict):
            item.update(value)
        item.comment(field.metadata["doc"])
        table.add(field.name, item)
    for name, value in nested:
        table.add(name, _table(value))
    return table


def with_types(text: str, types: Mapping[str, str]) -> str:
    """Return the text of a recipe with these column types; the rest of the text stays unchanged."""
    import tomlkit

    from featurestore.quoting import folded  # late: it imports DuckDB

    document: Any = tomlkit.parse(text)
    store = document.setdefault("store", tomlkit.table())
    found = store.get("types", {})
    names = {folded(name): name for name in found}
    given = {names.get(folded(name), name): kind for name, kind in types.items()}
    if isinstance(found, tomlkit.items.Table):  # [store.types], where lines have comments
        found.update(given)
    else:
        fresh = tomlkit.inline_table()
        fresh.update({**found, **given})
        store["types"] = fresh
    return tomlkit.dumps(document)


def identity(values: Any) -> dict[str, Any]:
    """Return a dataclass's identity: all parameters but policies, how results are stored, and late ones at defaults."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"{type(values).__name__}.{field.name} has no default")
        silent = field.metadata.get("late") and value == field.default
        if "among" in field.metadata:
            found |= {field.name: value.name, _own_table(value): identity(value)}
            found |= {f"{field.name}_version": value.version} if value.version != 1 else {}
        elif not field.metadata.get("policy") and not field.metadata.get("stored") and not silent:
            found[field.name] = identity(value) if dataclasses.is_dataclass(value) else value
    return found


def policies(values: Any) -> dict[str, Any]:
    """Return the policies of a dataclass: the parameters that decide which images are accepted."""
    return {f.name: getattr(values, f.name) for f in dataclasses.fields(values) if f.metadata.get("policy")}


def variant_of(
    stage: str, version: int, parameters: Mapping[str, Any], *, reads: str, model_id: str | None = None
) -> str:
    """Return the variant, the identity of a stage's output: 16 hex digits.

    Args:
        stage: its name.
        version: of its code.
        parameters: that are part of its identity.
        reads: the variant of the partitions it reads, empty for images.
        model_id: the model it uses, if any.
    """
    parts = [stage, version, parameters, reads, model_id]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
