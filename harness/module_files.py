"""Modules of users that stand in a file, in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def module_from_file(path: Path) -> ModuleType:
    """The module that a file holds, under the file's name.

    Raises:
        Exception: whatever the module raises when it is run.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "a file ending in .py has a loader"
    assert spec.loader is not None, "likewise"
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where a dataclass looks up its annotations
    spec.loader.exec_module(module)
    return module
