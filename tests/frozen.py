"""Imported last by the process from which others are forked: none of them looks for garbage among what is imported."""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
