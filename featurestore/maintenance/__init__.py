"""maintenance: keep the store true. Verify, repair, rebuild, merge, prune, and recover after a crash."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
