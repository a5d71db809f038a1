"""retrieval: the index of words. Which descriptors are near those of a query, and which images do they vote for?

It sees arrays and files, and no store. faiss is imported when an index is made or opened, and nowhere else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
