"""maintenance: verify, repair, rebuild, merge and prune a store, and recover it after a crash."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
