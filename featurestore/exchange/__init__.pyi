from .export import Choice as Choice
from .export import export_images as export_images
from .export import find_format as find_format
from .importers.npz import ImportReport as ImportReport
from .importers.npz import import_npz as import_npz
