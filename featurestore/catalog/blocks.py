"""The finished blocks of a store: which ones a run can use, and which ones no run will need.

The attempt decides (see `block_file`): a block can be used if a run would compute the same attempt today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import replace

from featurestore.catalog.chunk_state import ChunkState, chunk_states
from featurestore.catalog.context import Context, WritableContext
from featurestore.catalog.filenames import filenames_of_chunks
from featurestore.catalog.plan import StagePlan, Work, make_plan
from featurestore.catalog.runs import partition_manifest, versions
from featurestore.catalog.steps import Step, resolve
from featurestore.config import policies
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.images import state_of_image
from featurestore.stages import Extract
from featurestore.storage import PLAIN, Attempt, Block, Named, Origin, Root, Writer, block_names, read_block


def attempt_of(step: Step, work: Work) -> Attempt:
    """Return the attempt that a run would make today at a chunk of extract."""
    redo = replaces = None
    if work.redo is not None:
        redo = hashlib.sha256(json.dumps(sorted(work.redo)).encode()).hexdigest()[:16]
        replaces = work.old_payload
    manifest = partition_manifest(step, work, origin=Origin.RUN)
    del manifest["origin"]
    manifest["format"] = PLAIN  # so that blocks of earlier versions can be used
    return Attempt(
        {
            **manifest,
            "versions": versions(),
            "policies": policies(step.stage),
            "redo": redo,
            "replaces": replaces,
        }
    )


def with_finished_blocks(context: Context, plan: StagePlan, *, retry: Collection[str]) -> StagePlan:
    """Return a plan of extract with the finished blocks of each chunk.

    Args:
        context: of the store.
        plan: of extract.
        retry: statuses whose rows are recomputed, in blocks too.
    """
    found = _by_folder(context.root)
    if not found:
        return plan
    chunks = {named.chunk_id for several in found.values() for named in several}
    todo = []
    for work in plan.todo:
        attempt = attempt_of(plan.step, work) if work.chunk_id in chunks else None
        several = found.get(attempt.folder, []) if attempt else []
        finished = _usable(context, work, several, retry) if several else ()
        todo.append(replace(work, finished=finished))
    return replace(plan, todo=tuple(todo))


def _by_folder(root: Root) -> dict[str, list[Named]]:
    found: dict[str, list[Named]] = {}
    for named in block_names(root):
        found.setdefault(named.folder, []).append(named)
    return found


def _usable(context: Context, work: Work, several: list[Named], retry: Collection[str]) -> tuple[Block, ...]:
    """Return the blocks whose image files are unchanged, without rows to retry."""
    with context.catalog.reading() as connection:
        names = filenames_of_chunks(connection, [work.chunk_id])
    wanted, finished = set(work.wanted), list[Block]()
    for named in several:
        try:
            found = read_block(context.root, named)
        except (CorruptFile, FormatError, UnreadableFile):
            continue  # removed with its chunk, if `recover` leaves it
        image_ids = found.block.image_ids
        unchanged = (state_of_image(context.image(names[i])) == s for i, s in zip(image_ids, found.files, strict=True))
        if wanted.issuperset(image_ids) and found.statuses.isdisjoint(retry) and all(unchanged):
            finished.append(found.block)
            wanted.difference_update(image_ids)
    return tuple(finished)


def count_finished_images(root: Root, plan: StagePlan) -> int:
    """Return how many images of a plan of extract are in finished blocks, from the blocks' names."""
    return sum(named.n_images for named in finished_blocks(root, plan))


def finished_blocks(root: Root, plan: StagePlan) -> list[Named]:
    """Return the names of the finished blocks of a plan of extract, of chunks that are not published yet."""
    found = _by_folder(root)
    if not found:
        return []
    folders = {attempt_of(plan.step, work).folder for work in plan.todo}
    return [named for folder, several in found.items() if folder in folders for named in several]


def unneeded_blocks(context: Context) -> dict[str, list[str]]:
    """Return the names of blocks that the next run can't use, by folder."""
    found = _by_folder(context.root)
    if not found:
        return {}
    with context.catalog.reading() as connection:
        plan = make_plan(connection, resolve(connection, context.flow))[Extract.name]
    needed = {attempt_of(plan.step, work).folder for work in plan.todo}
    return {folder: [n.name for n in several] for folder, several in found.items() if folder not in needed}


def discard_blocks(root: Writer, attempt: Attempt) -> None:
    """Remove all blocks of a published chunk, those of other attempts too."""
    chunk = attempt.folder.removesuffix(attempt.identity)
    for folder in {attempt.folder, *(folder for folder in _by_folder(root) if folder.startswith(chunk))}:
        root.remove_folder(folder)


def remove_stale_blocks(context: WritableContext) -> None:
    """Remove damaged blocks, and those of an attempt that no run can make again.

    Blocks of a retry stay as long as the partition that it replaces: another such retry resumes from them.
    """
    folders = _by_folder(context.root)
    if not folders:
        return
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        step = next(step for step in steps if isinstance(step.stage, Extract))
        states = {state.chunk_id: state for state in chunk_states(connection, steps) if state.stage == Extract.name}
    for folder, several in folders.items():
        found = list(_readable(context, several))
        if not all(_is_of_today(step, states.get(several[0].chunk_id), attempt) for attempt in found):
            context.root.remove_folder(folder)


def _readable(context: WritableContext, several: list[Named]) -> Iterator[Attempt]:
    for named in several:
        try:
            yield read_block(context.root, named).attempt
        except FormatError:
            continue  # made by a newer version, so it stays
        except UnreadableFile as error:
            context.reporter.say(f"left alone: {error}")
        except CorruptFile:
            context.root.remove(named.name)


def _is_of_today(step: Step, state: ChunkState | None, attempt: Attempt) -> bool:
    """Return whether a run could still make an attempt at a chunk, by what is recorded of it."""
    if state is None:
        return False
    work = Work(
        chunk_id=state.chunk_id,
        first_image_id=state.first_image_id,
        n_images=state.n_images,
        why="",
        input_payload=state.input_payload,
        input_path=None,
        input_ready=True,
    )
    redo, replaces = attempt.manifest["redo"], attempt.manifest["replaces"]
    if Attempt({**attempt.manifest, "redo": None, "replaces": None}).identity != attempt_of(step, work).identity:
        return False
    whole = state.current and not state.pruned
    return bool(whole and replaces == state.payload) if redo is not None else not whole
