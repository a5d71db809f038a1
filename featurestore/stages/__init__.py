"""stages: the arithmetic. Each stage is a frozen dataclass whose fields are its parameters.

::

    images -> extract -> project -> quantize
                 |        ^   |        ^
                 v        |   v        |
               fit_pca ---+  fit_scale-+

A stage sees rows and arrays; it knows neither files nor the catalog nor the engine that runs it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
