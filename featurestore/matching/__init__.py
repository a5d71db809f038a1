"""matching: do two images show the same thing? Matches of descriptors, and the transform that their keypoints agree on.

`check_pair` is the whole check. It sees arrays and no store, and the same arrays give the same bytes: nothing is drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
