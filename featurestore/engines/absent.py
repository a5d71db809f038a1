"""Modules missing in a worker: it can't unpickle a task, and no image is to blame."""

from __future__ import annotations

import re
from concurrent.futures import BrokenExecutor
from importlib import metadata

from featurestore.errors import EngineLost, PluginError
from featurestore.system import advice_for, lacking

# Errors of unpickling, in the traceback that a broken pool gives as its cause.
_RAISED = re.compile(r"^(?:ModuleNotFoundError|ImportError|AttributeError): (.+)$", re.MULTILINE)
_MODULE = re.compile(r"(?:No module named|<module) '([\w.]+)'")


def refuse_absent_module(error: BaseException | None) -> None:
    """Refuse to go on if a task ended because its worker lacks a module, such as a plug-in.

    Raises:
        EngineLost: it has the module, and too little memory to load it.
        PluginError: it does; the message names the package.
    """
    said = _said(error)
    if said is None:
        return
    if reason := lacking(ImportError(said)):
        raise EngineLost(
            f"the workers can't load what this process can: {said}. Finished work is kept: {advice_for(reason)}, then "
            "run the same command again with fewer --workers, or with --workers 0"
        ) from error
    found = _MODULE.search(said)
    raise PluginError(
        f"the workers can't load what this process can: {said}. Finished work is kept; install it where the "
        f"workers run (pip install {_package(found[1]) if found else 'PACKAGE'}), then run the same command again"
    ) from error


def _said(error: BaseException | None) -> str | None:
    """Return the module that a worker lacks, or None if the task ended for another reason."""
    if isinstance(error, ImportError):
        return str(error)
    if not isinstance(error, BrokenExecutor) or error.__cause__ is None:
        return None
    lines: list[str] = _RAISED.findall(str(error.__cause__))
    return lines[-1] if lines else None


def _package(module: str) -> str:
    """Return the requirement, for pip, of the package that provides a module, in this process's version."""
    top = module.partition(".")[0]
    packages = metadata.packages_distributions().get(top)
    return f"{packages[0]}=={metadata.version(packages[0])}" if packages else top
