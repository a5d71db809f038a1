"""The query side: a new image through the same extractor, models and bounds as those in the store, and codes back."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import Context, ModelRow, Step, find_model, resolve
from featurestore.errors import NothingUsable, NotReady, QueryError
from featurestore.images import ReadFailed
from featurestore.query.selection import older_steps
from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.stages import Extract, Quantize, TransformStage, dequantize
from featurestore.storage import Arrays, read_arrays
from featurestore.system import command_line, one_blas_thread

IMAGE = -1  # the image_id of an image that is not in the store


@dataclass(frozen=True)
class Encoder:
    """What an image goes through: the stages of the recipe, each with its model."""

    extract: Extract
    transforms: tuple[tuple[TransformStage, Arrays], ...]

    def encode(self, image: str | os.PathLike[str] | NDArray[Any]) -> Row:
        """Return the row that a run would have stored.

        Args:
            image: the path of a file, or pixels ``(height, width, 3)`` uint8 in BGR order, as of ``cv2.imread``.

        Raises:
            NothingUsable: the file can't be used; the message says why.
            QueryError: it is neither a path nor such an array.
        """
        # BLAS with several threads differs in the last bits from what was stored
        with one_blas_thread():
            row = self._extracted(image)
            for stage, model in self.transforms:
                row = stage.transform(row, model)
        return row

    @property
    def layout(self) -> Layout:
        """The shape and dtype of what `encode` returns."""
        layout = self.extract.layout()
        for stage, model in self.transforms:
            layout = stage.layout(layout, model)
        return layout

    def _extracted(self, image: Any) -> Row:
        if isinstance(image, np.ndarray):
            return self._from_pixels(image)
        if not isinstance(image, (str, os.PathLike)):
            raise QueryError(f"encode takes the path of an image or an array of pixels, not {type(image).__name__}")
        try:
            row = self.extract.extract(IMAGE, Path(image).name, os.fspath(image))
        except ReadFailed as error:
            raise NothingUsable(f"{os.fspath(image)} can't be encoded: it can't be read ({error})") from error
        if row.status not in ("ok", "empty"):
            raise NothingUsable(f"{os.fspath(image)} can't be encoded: {row.error} ({row.status})")
        return row

    def _from_pixels(self, pixels: NDArray[Any]) -> Row:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise QueryError(
                f"encode takes pixels of shape (height, width, 3) and dtype uint8, in the order blue, green, red, as "
                f"cv2.imread gives them; this is {pixels.shape} {pixels.dtype}"
            )
        if pixels.shape[0] * pixels.shape[1] > self.extract.max_pixels:
            raise NothingUsable(
                f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels can't be encoded: over the limit of "
                f"{self.extract.max_pixels:,}; make it smaller, or raise max_pixels in [extract]"
            )
        keypoints, descriptors = self.extract.extractor.detect_and_compute(np.ascontiguousarray(pixels))
        if not len(descriptors):
            return Row(IMAGE, "", "empty", "no keypoints found")
        return Row(IMAGE, "", "ok", None, descriptors, keypoints)


def make_encoder(context: Context) -> Encoder:
    """Return the encoder of the current recipe and models.

    Raises:
        NotReady: a model has not been fitted yet.
    """
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
    extract = steps[0].stage
    assert isinstance(extract, Extract)
    models = {step.stage.name: step.current_model for step in steps}
    transforms: list[tuple[TransformStage, Arrays]] = []
    for step in steps:
        if isinstance(step.stage, TransformStage):
            assert step.stage.model is not None
            # the keypoints of a query cost nothing to keep, whatever the recipe says of the stored ones
            stage = replace(step.stage, keypoints=True) if isinstance(step.stage, Quantize) else step.stage
            transforms.append((stage, _arrays(context, step.stage.model, models[step.stage.model])))
    return Encoder(extract, tuple(transforms))


def _arrays(context: Context, stage: str, model: ModelRow | None) -> Arrays:
    if model is None:
        raise NotReady(f"the model of {stage} has not been fitted yet; run: {command_line('run', context.root.path)}")
    return read_arrays(context.root.local(model.path))[0]


def bounds(context: Context, variant: str | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the least and the greatest value of every dimension, ``(dim,)`` float32, that a variant of quantize used.

    Raises:
        NotReady: there is no model of fit_scale yet.
        QueryError: there is no such variant.
    """
    with context.catalog.reading() as connection:
        steps: tuple[Step, ...]
        if variant is None:
            steps = resolve(connection, context.flow)
            model = next(step.current_model for step in steps if step.stage.name == "fit_scale")
        else:
            model_id = older_steps(connection, context, "quantize", variant)[-1].model_id
            model = find_model(connection, model_id)
    arrays = _arrays(context, "fit_scale", model)
    return arrays["low"], arrays["high"]


def to_floats(codes: NDArray[np.uint8], low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return codes ``(n, dim)`` uint8 as float32 in the space of the PCA.

    Raises:
        QueryError: it is not such an array.
    """
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != len(low):
        raise QueryError(
            f"dequantize takes codes of shape (n, {len(low)}) and dtype uint8, and this is {codes.shape} {codes.dtype}"
        )
    return dequantize(codes, low=low, high=high)


def codes_and_keypoints(row: Row, layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a row's codes ``(n, dim)`` and keypoints ``(n,)``; both are empty for an image without keypoints."""
    codes = np.empty((0, layout.dim), layout.dtype) if row.descriptors is None else row.descriptors
    return codes, np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints
