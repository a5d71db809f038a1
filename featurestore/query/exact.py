"""Exact results: values that Arrow, Python, pandas and files can't hold exactly become DuckDB's text.

DuckDB has dates before the year 1 and infinite ones, 24:00, integers of 128 bits and more, and times with an offset.
Python and Arrow lack some of these, and change others. A column with such a value becomes DuckDB's own text, at any
depth; other columns keep their types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featurestore.quoting import identifier, literal

if TYPE_CHECKING:
    import duckdb

_WHOLE = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")}
NUMBERS = _WHOLE | {"integer", "uinteger", "bignum", "float", "double", "decimal"}
WIDE = {"blob", "list", "array", "struct", "tuple", "map", "union"}  # a row may hold a whole image
# Arrow loses the offset, the fraction, the length, the member or the meaning.
_ALWAYS_TEXT = {"time with time zone", "time_ns", "bit", "union", "bignum", "geometry", "variant", "type"}
_YEARS = "{} BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
# a day less at both ends, for any time zone of the display
_INSTANTS = "{} BETWEEN TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'"
_NANOSECONDS = "{} BETWEEN '1677-09-22 00:00:00' AND '2262-04-11 23:47:16'"
# Types whose values mostly fit, and the condition.
_FITS = {
    "hugeint": "{} BETWEEN -9223372036854775808 AND 9223372036854775807",
    "uhugeint": "{} <= 9223372036854775807",
    "date": "{} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
    "time": "{} < TIME '24:00:00'",
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms"), _YEARS),
    "timestamp with time zone": _INSTANTS,
    **dict.fromkeys(("timestamp_ns", "timestamptz_ns"), _NANOSECONDS),
    "interval": "abs(date_part('hour', {})) < 2562047",  # Arrow counts nanoseconds in 64 bits
}
Type = Any  # duckdb's DuckDBPyType, whose children depend on the type


def exact_columns(
    relation: duckdb.DuckDBPyRelation, *, keep_in: duckdb.DuckDBPyConnection | None = None
) -> duckdb.DuckDBPyRelation:
    """Return a relation with the same values; columns that Arrow can't hold exactly become text.

    Columns that may have such values are computed first.

    Args:
        relation: the answer.
        keep_in: an in-memory connection that stores a narrow result in its `answer_table`, to compute it once.
    """
    names, kinds = relation.columns, relation.types
    checks = [_fits(kind, f"#{i}") for i, kind in enumerate(kinds, 1)]
    asked = [i for i, check in enumerate(checks) if check is not None]
    fits = [True] * len(kinds)
    if asked:
        if keep_in is not None and not any(kind.id in WIDE for kind in kinds):
            relation.create(answer_table(keep_in))
            relation = keep_in.table(answer_table(keep_in))
        checked = relation.project(", ".join(f"({checks[i]}) AS c{i}" for i in asked))
        (found,) = checked.aggregate(", ".join(f"bool_and(c{i})" for i in asked)).fetchall()
        for i, answer in zip(asked, found, strict=True):
            fits[i] = answer is not False  # None: there is no value
    return _cast(relation, names, [_carried(kind, fits=fit) for kind, fit in zip(kinds, fits, strict=True)])


def answer_table(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the name of the table with a narrow result; connections to the same DuckDB have different ones."""
    return f"_answer_{id(connection):x}"


def texts(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return a relation with all values but BLOBs as text, in the same lists and structs."""
    return _cast(relation, relation.columns, [_shown(kind) for kind in relation.types])


def _cast(relation: duckdb.DuckDBPyRelation, names: list[str], wanted: list[str]) -> duckdb.DuckDBPyRelation:
    if [str(kind) for kind in relation.types] == wanted:
        return relation
    columns = [
        f"#{i}" if str(kind) == want else f"CAST(#{i} AS {want})"
        for i, (kind, want) in enumerate(zip(relation.types, wanted, strict=True), 1)
    ]
    return relation.project(", ".join(f"{c} AS {identifier(name)}" for c, name in zip(columns, names, strict=True)))


def _fits(kind: Type, value: str, depth: int = 0) -> str | None:
    """Return SQL that is false where a part of ``value`` does not fit; None if all fit, or none is tried."""
    if kind.id in _FITS:
        return _FITS[kind.id].format(value)
    if kind.id in ("list", "array"):
        return _all_fit(dict(kind.children)["child"], value, depth)
    if kind.id == "map":
        parts = [_all_fit(inner, f"map_{name}s({value})", depth) for name, inner in kind.children]
    elif kind.id in ("struct", "tuple"):
        parts = [
            _fits(inner, f"struct_extract({value}, {literal(name) if name else i})", depth)
            for i, (name, inner) in enumerate(kind.children, 1)
        ]
    else:
        return None
    found = [part for part in parts if part is not None]
    return f"({' AND '.join(found)})" if found else None


def _all_fit(kind: Type, values: str, depth: int) -> str | None:
    inner = _fits(kind, f"x{depth}", depth + 1)
    return None if inner is None else f"list_bool_and(list_transform({values}, lambda x{depth}: {inner}))"


def _carried(kind: Type, *, fits: bool) -> str:
    """Return the type to fetch a column as, depending on whether all of its values fit."""

    def leaf(kind: Type) -> str:
        if kind.id in _ALWAYS_TEXT or (kind.id in _FITS and not fits):
            return "VARCHAR"
        return "BIGINT" if kind.id in ("hugeint", "uhugeint") else str(kind)

    return _with_leaves(kind, leaf)


def _shown(kind: Type) -> str:
    return _with_leaves(kind, lambda kind: "BLOB" if kind.id == "blob" else "VARCHAR")


def _with_leaves(kind: Type, leaf: Any) -> str:
    """Return a type with its leaves replaced. Map keys that Python can't hash become text."""
    if kind.id in ("list", "array"):
        inner = dict(kind.children)
        return f"{_with_leaves(inner['child'], leaf)}[{inner.get('size', '')}]"
    if kind.id == "map":
        inner = dict(kind.children)
        key = "VARCHAR" if inner["key"].id in WIDE - {"blob"} else _with_leaves(inner["key"], leaf)
        return f"MAP({key}, {_with_leaves(inner['value'], leaf)})"
    if kind.id == "struct" and kind.children:
        members = [(str(inner), _with_leaves(inner, leaf), name) for name, inner in kind.children]
        if all(before == after for before, after, _ in members):
            return str(kind)
        return f"STRUCT({', '.join(f'{identifier(name)} {after}' for _, after, name in members)})"
    if kind.id == "tuple":
        same = all(str(inner) == _with_leaves(inner, leaf) for _, inner in kind.children)
        return str(kind) if same else "VARCHAR"
    return str(leaf(kind)) if kind.id != "struct" else str(kind)
