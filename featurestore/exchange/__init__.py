"""exchange: the files of other programs. Exporters write them, importers read them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
