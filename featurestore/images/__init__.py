"""images: from a file name in the image folder to pixels, or to a status and a message.

In a process that belongs to another program, a child process decodes. A missing file and an unmounted image folder are
told apart here too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
