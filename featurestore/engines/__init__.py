"""engines: where tasks run: in this process, in worker processes of this machine, or on a cluster.

An engine is one file with a class like `Engine`. `dispatch` has the code that all engines share: two tasks in flight
for each worker, and finding the task that kills its worker.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
