"""Every error the store raises on purpose.

::

    FeatureStoreError            what happened, why, and what to do next, in one line
    ├── UnusablePath             a path that the system, or DuckDB, can't open as it stands
    ├── NotAStore                the folder is not a store
    ├── StoreExists              init was pointed at a folder that is not empty
    ├── FormatError              the store was written by a newer version
    ├── ConfigError              featurestore.toml can't be used as it stands
    ├── DatasetError             the dataset CSV, the split or the image folder can't be used
    ├── StoreBusy                another process holds the store
    ├── NotWritable              this user may not change the store, or make one there
    ├── NotReady                 what was asked for reads something that is not there yet
    ├── ConfirmationNeeded       it would cost work that nobody has agreed to
    ├── NothingUsable            every image failed, or there is nothing to learn from
    ├── ImagesGone               the folder of images went away, or can't be read any more
    ├── NotEnoughSpace           the disk is full, or will be
    ├── CorruptFile              a file of the store is not what its manifest says
    ├── UnreadableFile           a file can't be read, for a reason that says nothing of what it holds
    ├── UntrustedStore           a store that somebody else made is not to be changed, or holds more than files
    ├── Incompatible             stores that can't be merged, because they are not of one dataset and recipe
    ├── LossyDescriptors         descriptors that can't be stored as uint8 without loss
    ├── QueryError               a query that DuckDB refused
    ├── OutputError              what was to be written can't go where it was said
    ├── EngineLost               the worker processes are gone and can't be had back
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
    """A store can't be made here, because something is here already."""


class FormatError(FeatureStoreError):
    """The store, or a file in it, is of a format that this version does not know."""


class ConfigError(FeatureStoreError):
    """``featurestore.toml`` can't be used: an unknown key, a wrong type, a value out of range."""


class DatasetError(FeatureStoreError):
    """The dataset CSV, the split expression or the image folder can't be used."""


class StoreBusy(FeatureStoreError):
    """Another process is changing the store."""


class NotWritable(FeatureStoreError):
    """This user may not write the store's files, or make a store in the folder."""


class NotReady(FeatureStoreError):
    """What was asked for reads something that has not been made yet."""


class ConfirmationNeeded(FeatureStoreError):
    """The command would cost work that nobody has agreed to; ``--yes`` agrees."""


class NothingUsable(FeatureStoreError):
    """Every image failed, or no descriptor is left to learn from."""


class ImagesGone(FeatureStoreError):
    """The folder of images went away while a run read it, or one image after the other can't be read."""


class NotEnoughSpace(FeatureStoreError):
    """The disk is full, or has less room than the work will need."""


class CorruptFile(FeatureStoreError):
    """A file of the store is damaged or not what its manifest says."""


class UnreadableFile(FeatureStoreError):
    """A file or folder can't be read: a permission, a failing disk, a limit. Nothing is known to be wrong with it.

    ``reason`` is what the operating system said. See `featurestore.system.access`.
    """

    reason = ""


class UntrustedStore(FeatureStoreError):
    """An untrusted store can't be changed, holds no links or devices, and is opened by `open_untrusted` alone."""


class Incompatible(FeatureStoreError):
    """The stores are not of one dataset and one recipe, so nothing of the one can be taken over by the other."""


class LossyDescriptors(FeatureStoreError):
    """An extractor that promises whole numbers from 0 to 255 gave something else."""


class QueryError(FeatureStoreError):
    """DuckDB refused the query."""


class OutputError(FeatureStoreError):
    """A file or folder to be written is there already, or can't be written there."""


class EngineLost(FeatureStoreError):
    """The engine's workers are gone and could not be replaced."""


class PluginError(FeatureStoreError):
    """A plug-in is installed and can't be used: it can't be imported, breaks its contract, or its name is taken."""


class MissingDependency(FeatureStoreError):
    """A package is needed that is not installed, or too old; the message says what to install."""
