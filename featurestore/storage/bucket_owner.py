"""Where a recipe says that partitions are, and the one store that a prefix of an object store belongs to.

An object store has no locks, and a run deletes objects without a record. So two stores must not share a prefix: an
object there and a file of its store hold the same number.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.errors import ConfigError, FeatureStoreError, NotWritable, UnreadableFile
from featurestore.storage.partitions import PARTITIONS, Partitions
from featurestore.storage.remote_partitions import RemotePartitions
from featurestore.storage.root import Root
from featurestore.system import (
    NoObject,
    ObjectClient,
    RequestFailed,
    UnusableAddress,
    is_file,
    is_remote,
    located_remote,
    parse_address,
    readable,
    replacing,
    unreadable,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

OWNER = "partitions.owner"  # in the store's folder, and the name of the object


def partitions_at(where: str) -> Partitions | None:
    """Return the keeper of partitions that a recipe names; None if it is the store's folder.

    Raises:
        ConfigError: it is no address of an object store, or can't be used.
        MissingDependency: the extra ``s3`` is not installed.
    """
    if not where:
        return None
    if not is_remote(where):
        raise ConfigError(
            f"[store] partitions is {where!r}, and should be empty, for the store's folder, or an address like "
            "s3://bucket/prefix"
        )
    return RemotePartitions.at_address(where)


def own_partitions(root: Root, *, called: Path | None = None, empty: bool = False) -> None:
    """Take the prefix of a store's partitions for this store, if it is free. Nothing is done where they are local.

    ``called`` is the folder that the store will have, for messages. With ``empty`` a free prefix has to be empty.

    Raises:
        ConfigError: it belongs to another store.
        NotWritable: the service denies to put an object there.
        UnreadableFile: the service does not answer.
    """
    if root.partitions.is_local:
        return
    ours = _number_of(root)
    client, data = (
        ObjectClient(root.partitions.where),
        json.dumps({"store": ours, "path": str(called or root.path)}).encode(),
    )
    found = _found(client)
    if found is None:
        _refuse_enclosed(root.partitions)
        if empty:
            _refuse_partitions(root.partitions)
    found = found or _put(client, data) or _found(client)
    _refuse_other(root.partitions, found, ours)


def refuse_owned(partitions: Partitions) -> None:
    """Check that a new store can have its partitions there.

    Raises:
        ConfigError: there are objects of another store.
        UnreadableFile: the service does not answer.
    """
    if partitions.is_local:
        return
    _refuse_other(partitions, _found(ObjectClient(partitions.where)), None)
    _refuse_enclosed(partitions)
    _refuse_partitions(partitions)


def disown_partitions(root: Root) -> None:
    """Give up the prefix of a store's partitions, in which there are none any more."""
    if not root.partitions.is_local:
        root.partitions.remove(OWNER)


def _refuse_partitions(partitions: Partitions) -> None:
    found, failed = partitions.names(PARTITIONS, "")
    if failed:
        raise failed[0]
    if found:
        raise ConfigError(
            f"{partitions.where} has partitions already, like {found[0]}, and a new store needs an empty place; choose "
            "another prefix"
        )


def _refuse_enclosed(partitions: Partitions) -> None:
    """Check that a prefix is not among the partitions of another store: its runs delete what they do not know."""
    scheme, bucket, prefix = parse_address(partitions.where)
    parts = prefix.split("/")
    for depth in (depth for depth, part in enumerate(parts) if part == PARTITIONS):
        above = located_remote(f"{scheme}://{bucket}/{'/'.join(parts[:depth])}")
        try:
            found = _found(ObjectClient(above))
        except UnreadableFile as error:
            if (error.reason or "").startswith("403"):  # credentials need to allow nothing above the prefix
                continue
            raise
        if found is not None:
            raise ConfigError(
                f"{partitions.where} is among the partitions of another store, made at {_owner(found)[1]}, which would "
                "delete what it does not know; choose another prefix"
            )


def unreachable(partitions: Partitions) -> str | None:
    """Return why this process can't read partitions that are elsewhere; None if it can, or if they are local."""
    if partitions.is_local:
        return None
    try:
        _found(ObjectClient(partitions.where))
    except (FeatureStoreError, UnusableAddress) as error:
        return f"can't read {partitions.where}: {getattr(error, 'reason', '') or error}"
    return None


def _number_of(root: Root) -> str:
    """Return the number of a store; it is made where there is none."""
    path = root.local(OWNER)
    if not is_file(path):
        with replacing(path) as draft:
            draft.write_text(uuid.uuid4().hex, encoding="ascii")
    with readable(path):
        return path.read_text(encoding="ascii", errors="replace").strip()


def _found(client: ObjectClient) -> bytes | None:
    """Return the content of the object, None if there is none."""
    import obstore

    try:
        return client.ask(lambda store: bytes(obstore.get(store, OWNER).bytes()))
    except NoObject:
        return None
    except RequestFailed as error:
        raise _failed(client, error) from error


def _put(client: ObjectClient, data: bytes) -> bytes | None:
    """Put the object, and return its content; None if another process was faster."""
    import obstore
    from obstore.exceptions import AlreadyExistsError

    def put(store: ObjectStore) -> bytes | None:
        try:
            obstore.put(store, OWNER, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return None
        return data

    try:
        return client.ask(put)
    except (NoObject, RequestFailed) as error:
        if str(error).startswith("403"):
            raise NotWritable(
                f"{client.where}/{OWNER} can't be put: {error}; let these credentials put and delete objects there"
            ) from error
        raise _failed(client, error) from error


def _failed(client: ObjectClient, error: Exception) -> UnreadableFile:
    return unreadable(f"{client.where}/{OWNER}", str(error))


def _refuse_other(partitions: Partitions, found: bytes | None, ours: str | None) -> None:
    if found is None and ours is None:
        return
    theirs, path = _owner(found or b"")
    if theirs is None or theirs != ours:
        raise ConfigError(
            f"{partitions.where} belongs to another store, made at {path}: a prefix belongs to one store. Choose "
            f"another for `partitions`; if this is that store, restored without its file {OWNER}, delete the object "
            f"{partitions.where}/{OWNER} and run again"
        )


def _owner(found: bytes) -> tuple[str | None, str]:
    """Return the number and the path of the store that the object names."""
    try:
        owner = json.loads(found)
        return owner["store"], owner["path"]
    except (ValueError, LookupError, TypeError):
        return None, "?"
