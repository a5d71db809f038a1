"""engines: where work runs. In this process, or in worker processes of this machine.

An engine is one file with a class like `Engine`. What all have in common, a bounded window of tasks and finding out
which task kills its worker, is in `dispatch`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
