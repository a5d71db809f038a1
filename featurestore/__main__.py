"""Run the command line as a module: ``python -m featurestore run ...``."""

import sys

from featurestore.cli import main

if __name__ == "__main__":
    sys.exit(main())
