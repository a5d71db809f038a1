"""The payload of a partition: a digest of its rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from featurestore.rows import OUTSIDE, Row


class RowDigest:
    """SHA-256 over the values of rows: equal rows give equal digests, however the file is encoded."""

    def __init__(self, input_payload: str) -> None:
        """Begin with the input's payload, so that a partition computed from other input gets another name."""
        self._sha = hashlib.sha256(input_payload.encode())

    def update(self, row: Row) -> None:
        """Add one row."""
        extra = {name: _canonical(value) for name, value in sorted(row.extra.items()) if name not in OUTSIDE}
        head = [row.image_id, row.filename, row.status, row.error, row.n_descriptors, row.keypoints is None, extra]
        self._sha.update(json.dumps(head, separators=(",", ":")).encode())
        if row.descriptors is not None:
            self._sha.update(np.ascontiguousarray(row.descriptors).data)
        if row.keypoints is not None:
            self._sha.update(np.ascontiguousarray(row.keypoints).tobytes())

    def hexdigest(self) -> str:
        """Return the payload's name: 16 hex digits."""
        return self._sha.hexdigest()[:16]


def _canonical(value: Any) -> Any:
    return np.asarray(value, dtype="<f4").tobytes().hex() if isinstance(value, (np.ndarray, list)) else value
