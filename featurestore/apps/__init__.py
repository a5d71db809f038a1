"""apps: what joins verbs of `FeatureStore` to answer a larger question, such as how good its searches are.

They ask and change a store by the public methods of `FeatureStore` alone, so that anybody could have written them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
