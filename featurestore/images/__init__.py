"""images: from a file name in the folder of images to pixels, or to a status and a line that says why not.

Decoding happens in a process of its own where a process of somebody else's asks for it. What tells a missing file from
a folder that went away is here too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
