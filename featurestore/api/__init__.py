"""api: `FeatureStore`, the facade that users hold, and the `Images` that it selects.

Every verb of the command line is one method of `FeatureStore`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
