"""Encoding a new image with the store's extractor, models and bounds; and decoding codes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import Context, ModelRow, find_model, resolve
from featurestore.errors import NothingUsable, NotReady, QueryError
from featurestore.images import ReadFailed
from featurestore.query.selection import older_steps
from featurestore.rows import KEYPOINT, USABLE, Layout, Row, Status
from featurestore.stages import Extract, FitStage, Stage, TransformStage, codes_of, layouts_of, upstream_of
from featurestore.storage import Arrays, read_arrays
from featurestore.system import command_line, one_blas_thread

IMAGE = -1  # the image_id of an image outside of the store


@dataclass(frozen=True)
class Encoder:
    """The encoder of new images: the stages of the recipe, each with its model."""

    extract: Extract
    transforms: tuple[tuple[TransformStage, Arrays], ...]
    fits: tuple[FitStage, ...] = ()

    def encode(self, image: str | os.PathLike[str] | NDArray[Any]) -> Row:
        """Return the row that a run would store.

        Args:
            image: the path of a file, or pixels ``(height, width, 3)`` uint8 in BGR order, as of ``cv2.imread``.

        Raises:
            NothingUsable: the file can't be used; the message says why.
            QueryError: it is neither a path nor such an array.
        """
        return self.encode_with_size(image)[0]

    def encode_with_size(self, image: str | os.PathLike[str] | NDArray[Any]) -> tuple[Row, tuple[int, int]]:
        """Return the row of `encode`, and the width and height of the image in pixels."""
        # several BLAS threads would change the last bits
        with one_blas_thread():
            row = source = self.extracted(image)
            for stage, model in self.transforms:
                row = stage.transform(row, model)
        return row, (source.extra["width"], source.extra["height"])

    @property
    def layout(self) -> Layout:
        """The shape and dtype of what `encode` returns."""
        stages = [stage for stage, _ in self.transforms]
        layouts = layouts_of((self.extract, *self.fits, *stages))
        return layouts[stages[-1].name if stages else self.extract.name]

    def extracted(self, image: Any) -> Row:
        """Return the row of extract; arguments and errors are those of `encode`."""
        if isinstance(image, np.ndarray):
            return self._from_pixels(image)
        if not isinstance(image, (str, os.PathLike)):
            raise QueryError(f"encode takes the path of an image or an array of pixels, not {type(image).__name__}")
        try:
            row = self.extract.extract(IMAGE, Path(image).name, os.fspath(image))
        except ReadFailed as error:
            raise NothingUsable(f"{os.fspath(image)} can't be encoded: it can't be read ({error})") from error
        if row.status not in USABLE:
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
        ((keypoints, descriptors),) = self.extract.describe([np.ascontiguousarray(pixels)])
        size = {"height": pixels.shape[0], "width": pixels.shape[1]}
        if not len(descriptors):
            return Row(IMAGE, "", Status.EMPTY, "no keypoints found", extra=size)
        return Row(IMAGE, "", Status.OK, None, descriptors, keypoints, size)


@dataclass(frozen=True)
class Decoder:
    """The stage that made codes, with its model."""

    stage: TransformStage
    model: Arrays

    def floats(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return codes as floats; see `TransformStage.floats`."""
        return self.stage.floats(codes, self.model)


def make_encoder(context: Context) -> Encoder:
    """Return the encoder of the current recipe and models.

    Raises:
        NotReady: a model has not been fitted yet.
    """
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
    models = {step.stage.name: step.current_model for step in steps}
    extract, *others = upstream_of(context.flow, codes_of(context.flow).name)
    assert isinstance(extract, Extract)
    transforms = [
        (stage.with_keypoints(), _arrays(context, stage.model, models[stage.model]) if stage.model else {})
        for stage in others
        if isinstance(stage, TransformStage)
    ]
    return Encoder(extract, tuple(transforms), tuple(s for s in context.flow if isinstance(s, FitStage)))


def extracting(context: Context) -> Encoder:
    """Return an encoder that does no more than to extract, and so needs no model."""
    extract, *_ = upstream_of(context.flow, codes_of(context.flow).name)
    assert isinstance(extract, Extract)
    return Encoder(extract, ())


def _arrays(context: Context, stage: str, model: ModelRow | None) -> Arrays:
    if model is None:
        raise NotReady(f"the model of {stage} has not been fitted yet; run: {command_line('run', context.root.path)}")
    return read_arrays(context.root.local(model.path))[0]


def decoder_of(context: Context, variant: str | None) -> Decoder:
    """Return the decoder of a variant's codes.

    Args:
        context: of the store.
        variant: of the stage that makes the codes; None is the current one.

    Raises:
        NotReady: there is no model yet.
        QueryError: there is no such variant.
    """
    codes: Stage = codes_of(context.flow)
    model: ModelRow | None = None
    with context.catalog.reading() as connection:
        if variant is None:
            steps = resolve(connection, context.flow)
            model = next((step.current_model for step in steps if step.stage.name == codes.model), None)
        else:
            step = older_steps(connection, context, codes.name, variant)[-1]
            codes, model = step.stage, find_model(connection, step.model_id)
    assert isinstance(codes, TransformStage)
    return Decoder(codes, _arrays(context, codes.model, model) if codes.model else {})


def model_arrays(context: Context, stage: str) -> Arrays:
    """Return the arrays of the current model of a fit stage, by name.

    Raises:
        QueryError: there is no such stage, or it fits no model.
        NotReady: it has not been fitted yet.
    """
    fits = [one.name for one in context.flow if isinstance(one, FitStage)]
    if stage not in fits:
        raise QueryError(f"there is no stage {stage!r} that fits a model; these do: {', '.join(fits)}")
    with context.catalog.reading() as connection:
        models = {step.stage.name: step.current_model for step in resolve(connection, context.flow)}
    return _arrays(context, stage, models[stage])


def codes_and_keypoints(row: Row, layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a row's codes ``(n, dim)`` and keypoints ``(n,)``; both are empty for an image without keypoints."""
    codes = np.empty((0, layout.dim), layout.dtype) if row.descriptors is None else row.descriptors
    return codes, np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints
