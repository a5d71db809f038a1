"""Importers: descriptors computed by other programs become partitions of extract."""
