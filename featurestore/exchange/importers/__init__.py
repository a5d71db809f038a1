"""Importers: descriptors that other programs have computed become extract partitions."""
