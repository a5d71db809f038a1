from .base import Engine as Engine
from .base import Task as Task
from .dispatch import WINDOW as WINDOW
from .dispatch import dispatch_in_order as dispatch_in_order
from .dispatch import dispatch_tasks as dispatch_tasks
from .local import all_cores as all_cores
from .local import begin_worker as begin_worker
from .registry import open_engine as open_engine
