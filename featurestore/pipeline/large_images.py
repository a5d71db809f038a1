"""Large images: how many are extracted at once, by the memory that they need."""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

from featurestore.formatting import human_bytes
from featurestore.pipeline.image_block import Image
from featurestore.system import free_memory

LOG = logging.getLogger("featurestore.pipeline")
FREE_SHARE = 0.9  # of the free memory: a run takes no more by default


class LargeImage(NamedTuple):
    """An image that needs more memory than a worker's share."""

    chunk_id: int
    image: Image
    n_bytes: int


class LargeImages:
    """The queue of large images.

    Half of the memory is shared by the workers for images that need no more than their share. Large images are
    extracted beside those as long as the other half and one share suffice for all of them. One that needs more than
    that is extracted while no other image is, whatever it needs: it is the only way to know.
    """

    def __init__(self, max_bytes: int | None, *, workers: int) -> None:
        """Divide the memory.

        Args:
            max_bytes: of all workers; None is most of what is free now.
            workers: with fewer than two no image is large, since one is extracted at a time.
        """
        self.share: int | None = None
        self._together = 0
        if workers > 1 and max_bytes is None and (free := free_memory()) is not None:
            max_bytes = int(free * FREE_SHARE)
        if workers > 1 and max_bytes is not None:
            self.share = max_bytes // (2 * workers)
            self._together = max_bytes // 2 + self.share
        self._waiting = deque[LargeImage]()
        self._at_work: dict[int, int] = {}  # image_id -> bytes

    def add(self, found: LargeImage) -> None:
        """Put an image into the queue."""
        LOG.info("%s needs %s of memory; it waits until they are free", found.image[1], human_bytes(found.n_bytes))
        self._waiting.append(found)

    def pop(self, *, idle: bool) -> LargeImage | None:
        """Return the next image if it may begin now; ``idle`` is whether no image is at work."""
        if not self._waiting:
            return None
        n_bytes = self._waiting[0].n_bytes
        if not idle and sum(self._at_work.values()) + n_bytes > self._together:
            return None
        begun = self._waiting.popleft()
        self._at_work[begun.image[0]] = n_bytes
        return begun

    def finish(self, image_id: int) -> None:
        """Take note that an image, large or not, is no longer at work."""
        self._at_work.pop(image_id, None)

    @property
    def stop_others(self) -> bool:
        """Whether no other image may begin: one that needs the memory of all workers is at work, or is the next."""
        following = [self._waiting[0].n_bytes] if self._waiting else []
        return any(n_bytes > self._together for n_bytes in (*self._at_work.values(), *following))
