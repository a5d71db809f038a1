"""dataset: the file that people bring, as rows of exact values with a filename and a subset.

CSV, Parquet and JSON, compressed or not; which types lose nothing; the SQL of the split. Nothing here knows a catalog.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
