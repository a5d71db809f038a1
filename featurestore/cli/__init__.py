"""cli: the command line. Each verb parses, calls one method of `FeatureStore`, and prints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
