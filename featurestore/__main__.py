"""Run the command line as a module: ``python -m featurestore run ...``."""

from featurestore.cli import program

if __name__ == "__main__":
    program()
