"""api: `FeatureStore`, the facade that users hold. Every verb of the command line is one method of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
