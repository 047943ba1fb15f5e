"""Code that is broken on purpose, for the tests that must notice it."""

import sys
from pathlib import Path
from types import ModuleType


def mutant(module, text, replacement):
    """The module with one replacement in its text, loaded under another name."""
    source = Path(module.__file__).read_text()
    assert source.count(text) == 1, f"the text to replace stands {source.count(text)} times"
    made = ModuleType(f"{module.__name__}_mutant")
    sys.modules[made.__name__] = made
    exec(compile(source.replace(text, replacement), made.__name__, "exec"), made.__dict__)
    return made
