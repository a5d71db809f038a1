"""Every error the store raises on purpose.

::

    FeatureStoreError            what happened, why, and what to do next, in one line
    ├── UnusablePath             a path that the system or DuckDB can't open
    ├── NotAStore                the folder is not a store
    ├── StoreExists              init was pointed at a folder that is not empty
    ├── FormatError              the store was written by a newer version
    ├── ConfigError              featurestore.toml has an invalid key or value
    ├── DatasetError             the dataset CSV, the split or the image folder can't be used
    ├── StoreBusy                another process holds the store
    ├── NotWritable              this user may not change the store, or make one there
    ├── NotReady                 the input of the requested work does not exist yet
    ├── ConfirmationNeeded       the caller has not agreed to the cost
    ├── NothingUsable            every image failed, or there is nothing to learn from
    ├── ImagesGone               the image folder disappeared, or has become unreadable
    ├── NotEnoughSpace           the disk is full, or will be
    ├── CorruptFile              a file of the store is damaged or does not match its manifest
    ├── UnreadableFile           a file can't be read, for a reason that says nothing about its content
    ├── UntrustedStore           an untrusted store can't be changed, or holds links or devices
    ├── Incompatible             stores of different datasets or recipes can't be merged
    ├── LossyDescriptors         descriptors that can't be stored as uint8 without loss
    ├── QueryError               a query that DuckDB refused
    ├── OutputError              the output path exists or is not writable
    ├── EngineLost               the worker processes died and could not be restarted
    ├── WorkerUnfit              a worker of a cluster has other versions, or not the store or the images
    ├── PluginError              an installed plug-in can't be used, or a worker does not have it
    └── MissingDependency        a package is not installed, or too old

The command line prints the message without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations


class FeatureStoreError(Exception):
    """Base class: the message says what happened, why, and what to do next."""

    exit_code = 1


class UnusablePath(FeatureStoreError):
    """A path that no file can have, or at which DuckDB would open another file."""


class NotAStore(FeatureStoreError):
    """The folder is not a store."""


class StoreExists(FeatureStoreError):
    """The folder of a new store is not empty."""


class FormatError(FeatureStoreError):
    """The store, or a file in it, has a format that this version does not know."""


class ConfigError(FeatureStoreError):
    """``featurestore.toml`` can't be used: an unknown key, a wrong type, a value out of range."""


class DatasetError(FeatureStoreError):
    """The dataset CSV, the split expression or the image folder can't be used."""


class StoreBusy(FeatureStoreError):
    """Another process is changing the store."""


class NotWritable(FeatureStoreError):
    """The store's files can't be written, or no store made in the folder: this user may not, or the disk fails."""


class NotReady(FeatureStoreError):
    """The input of the requested work has not been computed yet."""


class ConfirmationNeeded(FeatureStoreError):
    """The caller has not agreed to the cost of a command; ``--yes`` agrees."""


class NothingUsable(FeatureStoreError):
    """Every image failed, or no descriptor is left to learn from."""


class ImagesGone(FeatureStoreError):
    """The image folder disappeared during a run, or many images in a row can't be read."""


class NotEnoughSpace(FeatureStoreError):
    """The disk is full, or has less room than the work will need."""


class CorruptFile(FeatureStoreError):
    """A file of the store is damaged or does not match its manifest.

    ``fault`` is the message without the advice, where the two are known apart.
    """

    fault = ""


class UnreadableFile(FeatureStoreError):
    """A file or folder can't be read: a permission, a failing disk, a limit. Its content may be fine.

    ``path`` is that of the file, and ``reason`` the operating system's message. See `featurestore.system.access`.
    """

    path = ""
    reason = ""


class UntrustedStore(FeatureStoreError):
    """An untrusted store can't be changed, holds no links or devices, and is opened by `open_untrusted` alone."""


class Incompatible(FeatureStoreError):
    """The stores have different datasets or recipes, so they can't be merged."""


class LossyDescriptors(FeatureStoreError):
    """An extractor that promises whole numbers from 0 to 255 gave something else."""


class QueryError(FeatureStoreError):
    """DuckDB refused the query."""


class OutputError(FeatureStoreError):
    """The output path exists or is not writable, or the port of the viewer can't be used."""


class EngineLost(FeatureStoreError):
    """The worker processes died and could not be restarted."""


class WorkerUnfit(FeatureStoreError):
    """A worker on another machine has other versions than the run, or does not see its store or its images."""


class PluginError(FeatureStoreError):
    """A plug-in is installed and can't be used: it can't be imported, breaks its contract, or its name is taken."""


class MissingDependency(FeatureStoreError):
    """A required package is not installed, or too old; the message says what to install."""
