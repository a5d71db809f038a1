"""storage: bytes on disk. The store's folder, its run lock, and every kind of file in it.

A file appears all at once or not at all. Partitions, models, finished blocks and pruned partitions have manifests,
which are checked before anything else of the file is believed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
