"""drawing: pictures of keypoints and of matches. It sees arrays and no store.

`Picture` is what users hold: a notebook displays it, and `save` writes it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
