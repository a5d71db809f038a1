"""The terms of work on a store: what a worker elsewhere has in common with the process that holds the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.catalog.runs import versions
from featurestore.errors import UnreadableFile
from featurestore.storage import CONFIG, HOLDER, Root, read_signature, unreachable
from featurestore.system import file_digest, is_file


@dataclass(frozen=True)
class StoreTerms:
    """The versions, and the store."""

    root: Root
    token: str | None  # of the signature of the store's holder; None: this user may not write the store
    versions: Mapping[str, str]

    def misfit(self) -> str | None:
        """Return why this process can't work for the holder of the store, None if it can."""
        ours = versions()
        for name, wanted in self.versions.items():
            if ours.get(name) != wanted:
                return f"has {name} {ours.get(name, 'not installed')} instead of {wanted}"
        if self.is_over():
            return (
                f"does not see that this run holds {self.root.path} ({HOLDER}): the store is not mounted there, or "
                "another folder is"
            )
        return unreachable(self.root.partitions)

    def is_over(self) -> bool:
        """Return whether the holder no longer holds the store; a signature that can't be read says nothing."""
        if self.token is None:
            return False
        try:
            found = read_signature(self.root) or read_signature(self.root)  # it may be about to change
        except UnreadableFile:
            return False
        return found is None or found.token != self.token


@dataclass(frozen=True)
class ReadingTerms(StoreTerms):
    """The terms of a verb that only reads files of a store, which may be another one than the one that is held."""

    read: Root
    recipe: str  # digest of its recipe

    def misfit(self) -> str | None:
        """Return why this process can't work for the verb, None if it can."""
        found = super().misfit()
        if found is not None:
            return found
        path = self.read.local(CONFIG)
        if not is_file(path) or file_digest(path) != self.recipe:
            return f"does not see {path} as it is here: the store is not mounted there, or another folder is"
        return unreachable(self.read.partitions)


def terms_for_reading(holder: Root, read: Root) -> ReadingTerms:
    """Return the terms of a verb that holds a store, and reads that one or another."""
    signature, there = read_signature(holder), read.absolute()
    token = None if signature is None else signature.token
    return ReadingTerms(holder.absolute(), token, versions(), there, file_digest(there.local(CONFIG)))
