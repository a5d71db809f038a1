"""catalog: what is known of a store: images, chunks, partitions, models and runs, in DuckDB.

The schema, transactions, the records of files and runs, and the plan, which asks what is missing. It is an index: all
of it but ``runs`` follows from the files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
