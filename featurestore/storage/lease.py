"""The signature of a store's holder, and the sign of life that other machines see.

On one machine the lock shows whether a store is held. Machines may share a folder but not its locks; between them the
signature ``run.lock.json`` decides: a thread of the holder increments a number in it every two seconds. A process that
watches the number uses only its own clock. The signature has a token; a process that takes over writes another one, so
that a holder that was considered dead notices before it changes anything.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from featurestore.errors import StoreBusy, UnreadableFile
from featurestore.storage.root import Root
from featurestore.storage.writer import Writer
from featurestore.system import ABSENT, SIGNALS, boot_id, readable, replacing, writing

HOLDER = "run.lock.json"
LONGEST = 1000  # bytes of it that are read
BEAT_SECONDS = 2.0
STALE_SECONDS = 60.0  # without a beat, by the clock of the process that watches; it may take over then
LOOK_SECONDS = 5.0  # a process that only asks does not watch longer
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Signature:
    """The holder of a store."""

    verb: str
    pid: int
    host: str
    since: str
    boot: str = ""  # of the kernel; empty in signatures of earlier versions, which have no token and no beat either
    token: str = ""
    beat: int = 0

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"featurestore {self.verb} (pid {self.pid} on {self.host}, since {self.since})"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether the lock itself tells if the holder lives."""
        return self.boot == boot_id() if self.boot and boot_id() else self.host == socket.gethostname()

    def encode(self) -> bytes:
        """Return it as JSON, of the same length for every beat."""
        values = asdict(self)
        beat = values.pop("beat")
        return f'{json.dumps(values)[:-1]}, "beat": {beat:12d}}}'.encode()


def decode(data: bytes) -> Signature | None:
    """Return the signature encoded in ``data``, None if it is invalid."""
    try:
        content = json.loads(data)
        found = Signature(**{name: content[name] for name in Signature.__annotations__ if name in content})
        # 0 and less are process groups
        return found if type(found.pid) is int and 0 < found.pid < 2**31 else None
    except (ValueError, TypeError, RecursionError):
        return None


def read_signature(root: Root) -> Signature | None:
    """Return the store's signature, None if there is none or it is invalid.

    Raises:
        UnreadableFile: it can't be read.
    """
    path = root.local(HOLDER)
    try:
        with readable(path), path.open("rb") as file:
            return decode(file.read(LONGEST))
    except ABSENT:
        return None


def seen_signature(root: Root) -> Signature | None:
    """Return the store's signature, None if it can't be read either."""
    try:
        return read_signature(root)
    except UnreadableFile:
        return None


def watch(root: Root, found: Signature, *, seconds: float) -> Signature | None:
    """Watch a signature until it changes (a sign of life), disappears, or the time is over; return the last one."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
        now = read_signature(root)
        if now != found:
            return now
    return found


class Lease(Writer):
    """A holder's own signature, kept alive, and the right to change the store for as long as it is there."""

    def __init__(self, root: Root, verb: str) -> None:
        """Take the store and the verb; nothing is signed yet, so nothing may be changed."""
        super().__init__(root.path, root.partitions)
        self._verb = verb
        self._token = uuid.uuid4().hex[:16]
        self._over = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Writer]:
        """Sign the store, and yield the right to change it, which ends once another process has signed.

        Raises:
            StoreBusy: by any change of the store after that.
        """
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        mine = Signature(self._verb, os.getpid(), socket.gethostname(), since, boot_id(), self._token)
        thread = threading.Thread(target=self._beat, args=(mine,), name="featurestore-lease", daemon=True)
        path = self.local(HOLDER)
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(mine.encode())
            with readable(path):  # failing to start a thread is no fault of the store
                thread.start()
            yield self
        finally:
            self._over.set()
            if thread.ident is not None:
                thread.join(BEAT_SECONDS)  # a file system that hangs holds up nothing else
            if self._is_ours(seen_signature(self)):
                with writing(path):
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that no other process has taken over."""
        found = read_signature(self)
        if not self._is_ours(found):
            who = f"taken over by {found}" if found else f"released: {HOLDER} is gone"
            raise StoreBusy(
                f"{self.path} was {who}, since this {self._verb} gave no sign of life for a while; it records "
                "nothing more. Run it again when no other process uses the store"
            )

    def _is_ours(self, found: Signature | None) -> bool:
        return found is not None and found.token == self._token

    def _beat(self, mine: Signature) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are the main thread's
        beat = 0
        while not self._over.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._write(Signature(**{**asdict(mine), "beat": beat}))
            except OSError:  # the next beat may succeed, and a process that watches is patient
                continue

    def _write(self, mine: Signature) -> None:
        """Write the next beat into our own file, even if another file has replaced it meanwhile."""
        descriptor = os.open(self.local(HOLDER), os.O_RDWR)
        try:
            if self._is_ours(decode(os.pread(descriptor, LONGEST, 0))):
                os.pwrite(descriptor, mine.encode(), 0)
        finally:
            os.close(descriptor)
