from .export import export_images as export_images
from .export import export_models as export_models
from .export import find_format as find_format
from .exporters.base import ImageExporter as ImageExporter
from .exporters.base import ModelExporter as ModelExporter
from .importers.npz import ImportReport as ImportReport
from .importers.npz import import_npz as import_npz
