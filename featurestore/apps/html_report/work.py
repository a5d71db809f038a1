"""The sections about what was computed: the stages, their models, the runs that made them, and the disk they take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from featurestore.api import FeatureStore
from featurestore.apps.html_report.asking import Ask, rows_of, short, table_of
from featurestore.apps.html_report.parts import Column, Note, Section, Table

if TYPE_CHECKING:
    from featurestore.query import Status

MOST_RUNS = 50
STAGE = Column("stage", "name")
FIXED = ("n_images", "n_descriptors")  # of a summary: columns of their own
WHOLE = """\
SELECT stage, count(*) AS chunks, sum(n_images) AS images, sum(n_descriptors) AS descriptors, sum(n_bytes) AS bytes
FROM partitions WHERE current GROUP BY stage
UNION ALL
SELECT stage, NULL, n_images, CAST(summary ->> 'n_descriptors' AS BIGINT), n_bytes FROM models WHERE current"""
PARAMETERS = """\
SELECT v.stage, v.variant, v.version, v.parameters FROM variants v
WHERE v.variant IN (SELECT variant FROM partitions WHERE current UNION SELECT variant FROM models WHERE current)"""
MODELS = """\
SELECT stage, model_id, n_images, generation, CASE WHEN partial THEN 'of unfinished chunks' ELSE 'complete' END AS kind,
  n_bytes, CAST(summary AS VARCHAR) AS summary
FROM models WHERE current"""
LEARNT = """\
SELECT m.stage, i.subset, count(t.image_id) AS learnt, count(*) - count(t.image_id) AS not_learnt
FROM models m
CROSS JOIN (SELECT image_id, subset FROM image_counts WHERE extract > 0) i
LEFT JOIN training_images t ON t.model_id = m.model_id AND t.image_id = i.image_id
WHERE m.current GROUP BY ALL"""
MISSING = """\
SELECT stage, why, count(*) AS chunks, sum(n_images) AS images FROM missing GROUP BY ALL"""
RUNS = f"""\
SELECT stage, started, seconds, n_images, n_descriptors, outcome, {short("message")} AS message, host, workers
FROM runs ORDER BY started DESC, run_id"""
LIBRARIES = """\
SELECT stage, CAST(versions AS VARCHAR) AS versions, count(*) AS partitions
FROM partitions WHERE current GROUP BY ALL"""
DISK = """\
SELECT stage, sum(n_bytes) FILTER (current) AS current, sum(n_bytes) FILTER (NOT current) AS older,
  sum(n_bytes) AS bytes
FROM (SELECT stage, n_bytes, current FROM partitions UNION ALL SELECT stage, n_bytes, current FROM models)
GROUP BY stage"""


def flow(store: FeatureStore, ask: Ask, status: Status) -> Section:
    """Return the section of the stages: what is done, what is missing and why, and the parameters."""
    order = _order(status)
    columns = (
        STAGE,
        Column("chunks", "number"),
        Column("images", "number"),
        Column("descriptors", "number"),
        Column("bytes", "bytes"),
    )
    parts: list[Table | Note] = [table_of(ask, "Results of each stage", columns, _in_order(WHOLE, order))]
    missing = table_of(
        ask,
        "What a run would compute",
        (STAGE, Column("why"), Column("chunks", "number"), Column("images", "number")),
        _in_order(MISSING, order, "why"),
    )
    fits = [f"{one.stage} has no model yet." for one in status.stages if one.is_fit and one.model is None]
    if missing.rows:
        parts.append(missing)
    parts += [Note(line, warning=True) for line in fits]
    if not missing.rows and not fits:
        parts.append(Note("Every stage is finished."))
    parts += [
        Note(line) for line in (*status.notes, *(f"{s.stage}: {note}" for s in status.stages for note in s.notes))
    ]
    return Section("flow", "The flow", [*parts, _parameters(store, ask, order)])


def models(ask: Ask, status: Status) -> Section:
    """Return the section of the models: what they are, and what they have and have not seen."""
    order = _order(status)
    query = _in_order(MODELS, order)
    rows = []
    for stage, model_id, n_images, generation, kind, n_bytes, summary in rows_of(ask, query):
        about = _pairs({name: value for name, value in json.loads(summary).items() if name not in FIXED})
        rows.append((stage, model_id, n_images, generation, kind, n_bytes, about))
    columns = (
        STAGE,
        Column("model", "code"),
        Column("images learnt", "number"),
        Column("updates", "number"),
        Column("kind"),
        Column("bytes", "bytes"),
        Column("summary"),
    )
    learnt = table_of(
        ask,
        "Images with descriptors that each model has learnt, and has not",
        (STAGE, Column("subset"), Column("learnt", "number", bar=True), Column("not learnt", "number")),
        _in_order(LEARNT, order, "subset"),
    )
    parts: list[Table | Note] = [Table("Models of the recipe", columns, rows, query), learnt]
    leaks = [
        Note(f"{one.stage}: {note}", warning=True)
        for one in status.stages
        for note in one.notes
        if note.startswith(("leakage", "the model learnt"))
    ]
    parts += leaks or [Note("No model has learnt an image that its split holds out.")]
    lead = "A model that has learnt test images makes results on them look better than they are."
    return Section("models", "Models, leakage and unseen images", parts, lead)


def runs(ask: Ask, status: Status) -> Section:
    """Return the section of the runs: when, where, with what outcome, and with which libraries."""
    columns = (
        STAGE,
        Column("started", "time"),
        Column("time", "seconds"),
        Column("images", "number"),
        Column("descriptors", "number"),
        Column("outcome", "name"),
        Column("message"),
        Column("host"),
        Column("workers", "number"),
    )
    query = _in_order(LIBRARIES, _order(status), "versions")
    made = [(stage, _pairs(json.loads(text)), n) for stage, text, n in rows_of(ask, query)]
    libraries = Table(
        "Libraries that made the results", (STAGE, Column("versions"), Column("partitions", "number")), made, query
    )
    ran = table_of(ask, "Runs, the latest first", columns, RUNS, most=MOST_RUNS)
    return Section("runs", "Runs and libraries", [ran, libraries])


def disk(ask: Ask, status: Status) -> Section:
    """Return the section of what each stage takes on disk."""
    columns = (
        STAGE,
        Column("of the recipe", "bytes"),
        Column("of older recipes", "bytes"),
        Column("in all", "bytes", bar=True),
    )
    return Section("disk", "Disk", [table_of(ask, "Bytes by stage", columns, _in_order(DISK, _order(status)))])


def _parameters(store: FeatureStore, ask: Ask, order: list[str]) -> Table:
    query = _in_order(PARAMETERS, order)
    rows = []
    for stage, variant, version, text in rows_of(ask, query):
        identity = json.loads(text)
        rest = _rest(store.parameters(stage), identity) if stage in order else {}
        rows.append((stage, variant, version, _pairs(identity), _pairs(rest)))
    columns = (
        STAGE,
        Column("variant", "code"),
        Column("version", "number"),
        Column("parameters of the variant"),
        Column("defaults, and what changes no result", "muted"),
    )
    return Table("Parameters", columns, rows, query)


def _rest(parameters: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a variant does not name."""
    rest: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):  # of an extractor: a table under its name
            table = identity.get(name, name)
            rest[table] = _rest(value, identity.get(table, {}))
        elif name not in identity:
            rest[name] = value
    return rest


def _order(status: Status) -> list[str]:
    return [one.stage for one in status.stages]


def _in_order(query: str, stages: list[str], *others: str) -> str:
    """Return a query whose rows come in the order of the flow; stages of other recipes are last, by name."""
    names = ", ".join("'" + stage.replace("'", "''") + "'" for stage in stages)
    position = f"coalesce(list_position([{names}], stage), {len(stages) + 1})"
    return f"SELECT * FROM (\n{query}\n) ORDER BY {', '.join([position, 'stage', *others])}"


def _pairs(values: dict[str, Any], prefix: str = "") -> str:
    """Return names and values as one line."""
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found.append(_pairs(value, f"{prefix}{name}."))
        else:
            found.append(
                f"{prefix}{name} {value:.4g}" if isinstance(value, float) else f"{prefix}{name} {_plain(value)}"
            )
    return ", ".join(part for part in found if part)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
