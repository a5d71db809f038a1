"""The open store that every operation receives: root, settings, flow and catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featurestore.catalog.catalog import Catalog, StoreCatalog
from featurestore.config import StoreSettings
from featurestore.images import ImagePath, Source, image_at, located_images, source_at
from featurestore.progress import Reporter
from featurestore.stages import Stage
from featurestore.storage import Root, Writer
from featurestore.system import located


@dataclass(frozen=True)
class Context:
    """An open store."""

    root: Root
    catalog: Catalog
    settings: StoreSettings
    flow: tuple[Stage, ...]
    reporter: Reporter

    @property
    def images(self) -> str:
        """The address of the images; a relative path in the recipe starts at the store."""
        return located_images(self.settings.images, self.root.path)

    @property
    def source(self) -> Source:
        """The source of images, open.

        Raises:
            ImagesGone: a file that holds images is not there.
        """
        return source_at(self.images)

    def image(self, filename: str) -> ImagePath:
        """Return where an image is, for `read_image`."""
        return image_at(self.images, filename)

    @property
    def dataset(self) -> Path | None:
        """The dataset CSV, or None where the folder of images is scanned."""
        given = self.settings.dataset
        return self._located(given, "the dataset") if given else None

    def changed_by(self, writer: Writer) -> WritableContext:
        """Return the same store for the process that holds it."""
        return WritableContext(writer, StoreCatalog(writer), self.settings, self.flow, self.reporter)

    def _located(self, given: str, what: str) -> Path:
        return located(given if given.startswith("~") else self.root.path / given, what)


@dataclass(frozen=True)
class WritableContext(Context):
    """An open store that this process holds. What changes a store takes it, and only the run lock gives it."""

    root: Writer
    catalog: StoreCatalog
