"""dataset: the user's dataset file, as rows of exact values with a filename and a subset.

CSV, Parquet and JSON, compressed or not; column types without loss; the SQL of the split. No module here knows the
catalog.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
