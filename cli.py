"""Run the command line from a checkout: ``python cli.py run ...``. The verbs live in ``featurestore/cli.py``."""

import sys

from featurestore.cli import main

if __name__ == "__main__":
    sys.exit(main())
