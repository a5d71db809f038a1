"""What the tests of storage share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.faults import largest_file


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """No file can grow over 64 kB: what a full disk does, for this process alone."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with largest_file(1 << 16):
        yield
    signal.signal(signal.SIGXFSZ, handler)
