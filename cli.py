"""Run the command line from a checkout: ``python cli.py run ...``. The verbs live in ``featurestore/cli``."""

from featurestore.__main__ import program

if __name__ == "__main__":
    program()
