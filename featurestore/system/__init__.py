"""system: the machine under the store.

Unreadable files, full disks, odd paths, object stores, signals, child processes, time limits, memory, BLAS threads and
standard streams. No module here knows what a store is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
