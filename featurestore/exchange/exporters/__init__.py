"""The formats of `export`: one file each, named in `featurestore.exchange.registry`."""
