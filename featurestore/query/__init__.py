"""query: ask and load. SQL over the views, tables, matrices and single images; none of it changes the store."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
