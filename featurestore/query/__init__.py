"""query: reading the store. SQL over the views, tables, matrices and single images; no query changes the store."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
