"""stages: the arithmetic. Each stage is a frozen dataclass whose fields are its parameters.

::

    images -> extract -> project -> quantize
                 |        ^   |        ^
                 v        |   v        |
               fit_pca ---+  fit_scale-+

A stage works on rows and arrays. It knows no files, no catalog and no engine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
