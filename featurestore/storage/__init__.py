"""storage: bytes on disk. The store's folder, its run lock, and every kind of file in it.

A file appears complete or not at all. Partitions, models, finished blocks and pruned partitions have manifests, which
are checked before the rest of the file is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
