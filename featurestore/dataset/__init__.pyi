from .columns import TEXT as TEXT
from .columns import misfits as misfits
from .reader import read_dataset as read_dataset
from .reader import read_images as read_images
from .split import is_subset as is_subset
