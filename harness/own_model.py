"""A user's own model by its place: ``--model FILE.py:CLASS`` or ``--model MODULE:CLASS``."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from checkers import Model
from checkers.own_model import vetted
from harness.errors import ConfigError
from harness.module_files import module_from_file


def is_place(name: str) -> bool:
    """Whether that is the place of a model rather than the name of one of ours."""
    return ":" in name


@cache
def model_at(place: str) -> Model:
    """The model: an object, or a class that can be called without arguments.

    Raises:
        ConfigError: there is nothing like that; one sentence that names the place, the fault and the remedy.
    """
    where, _, name = place.rpartition(":")
    module = _module(place, where)
    made = getattr(module, name, None)
    if made is None:
        raise ConfigError(
            f"--model {place}: {where} has no {name or 'class without a name'}; give FILE.py:CLASS"
        )
    try:
        return vetted(made() if isinstance(made, type) else made)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"--model {place}: {type(error).__name__}: {error}; give a class without arguments, see docs/models.md"
        ) from error


def _module(place: str, where: str) -> ModuleType:
    is_file = where.endswith(".py")
    sys.path.insert(0, str(Path(where).absolute().parent if is_file else Path.cwd()))  # as of a program
    try:
        return _from_file(place, Path(where)) if is_file else importlib.import_module(where)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a program that is run when it is imported may well end so
        raise ConfigError(
            f"--model {place} cannot be imported ({type(error).__name__}: {error}); give FILE.py:CLASS or MODULE:CLASS"
        ) from error


def _from_file(place: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--model {place}: there is no file {path}; give FILE.py:CLASS")
    return module_from_file(path)
