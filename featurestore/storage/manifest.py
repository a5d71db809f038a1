"""Manifests: each file's description of itself, and the checks before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from featurestore.config import variant_of
from featurestore.errors import CorruptFile

DEEPEST = 2**31 - 1  # chunk numbers and counts are 32-bit integers in the catalog
HEX = re.compile(r"[0-9a-f]{16}")
WORD = re.compile(r"[a-z][a-z_]{0,40}")


def parse_manifest(text: str | bytes) -> dict[str, Any]:
    """Return a manifest from its JSON.

    Raises:
        ValueError: it is not a JSON object, or holds values that the catalog can't store.
    """
    if not text:
        raise ValueError("it has no manifest")
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is valid JSON, but not valid text
    except RecursionError as error:
        raise ValueError("the manifest is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("the manifest is not a JSON object")
    return found


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= DEEPEST


def _identity(value: Any) -> bool:
    return isinstance(value, str) and bool(HEX.fullmatch(value))


def _stage(value: Any) -> bool:
    return isinstance(value, str) and bool(WORD.fullmatch(value))


def _list(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(is_right, value))


class Origin(StrEnum):
    """The origin of a partition."""

    RUN = "run"
    NPZ = "npz"  # imported from the notebook's files
    COLMAP = "colmap"  # imported from a COLMAP database


Check = Callable[[Any], bool]
_COMMON: dict[str, Check] = {
    "stage": _stage,
    "version": _whole,
    "parameters": lambda value: isinstance(value, dict),
    "variant": _identity,
    "reads_variant": lambda value: value == "" or _identity(value),
    "versions": lambda value: isinstance(value, dict),
}
PARTITION: dict[str, Check] = {
    **_COMMON,
    "model_id": lambda value: value is None or _identity(value),
    "chunk_id": _whole,
    "first_image_id": lambda value: type(value) is int and 0 <= value < 2**62,
    "n_images": lambda value: _whole(value) and value > 0,
    "input_payload": _identity,
    "payload": _identity,
    "origin": _stage,
}
BLOCK: dict[str, Check] = {
    **{entry: is_right for entry, is_right in PARTITION.items() if entry != "origin"},
    "policies": lambda value: isinstance(value, dict),
    "redo": lambda value: value is None or _identity(value),
    "replaces": lambda value: value is None or _identity(value),
    "image_ids": lambda value: _list(value, lambda image_id: type(image_id) is int) and len(value) > 0,
    "files": lambda value: _list(value, lambda state: state is None or _list(state, lambda n: type(n) is int)),
    "statuses": lambda value: isinstance(value, dict),
}
MODEL: dict[str, Check] = {
    **_COMMON,
    "parent_id": lambda value: value is None or _identity(value),
    "generation": _whole,
    "partial": lambda value: isinstance(value, bool),
    "summary": lambda value: isinstance(value, dict),
}


def check_manifest(manifest: Mapping[str, Any], kind: Mapping[str, Check], name: str) -> None:
    """Check that a manifest has every entry of its kind, and that its parameters give its variant.

    Raises:
        CorruptFile: an entry is missing or wrong, or the variant does not match.
    """
    for entry, is_right in kind.items():
        if entry not in manifest:
            raise CorruptFile(f"{name} has a manifest without {entry}")
        if not is_right(manifest[entry]):
            raise CorruptFile(f"{name} has a manifest whose {entry} is {_short(manifest[entry])}")
    variant = variant_of(
        manifest["stage"],
        manifest["version"],
        manifest["parameters"],
        reads=manifest["reads_variant"],
        model_id=manifest.get("model_id"),
    )
    if variant != manifest["variant"]:
        raise CorruptFile(f"{name} says it is of variant {manifest['variant']}, and its parameters make it {variant}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
