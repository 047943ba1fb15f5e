"""Errors, named for who must act. A violated guarantee is never an error: it is a verdict.

Every message is one sentence that names the thing, the value and the remedy; the command line prints it as it is
and leaves with the class's exit code.
"""

from __future__ import annotations

from typing import Literal

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_UNKNOWN = 2
EXIT_BAD_INPUT = 254
EXIT_INTERNAL = 255

Valid = Literal["valid", "invalid", "unknown"]
EXIT_CODES: dict[Valid, int] = {"valid": EXIT_VALID, "invalid": EXIT_INVALID, "unknown": EXIT_UNKNOWN}
#: How a verdict is written in JSON.
JSON_VALID: dict[Valid, bool | str] = {"valid": True, "invalid": False, "unknown": "unknown"}


class SplitbrainError(Exception):
    """Anything that ends a command with a sentence instead of a verdict."""

    exit_code = EXIT_INTERNAL


class ConfigError(SplitbrainError):
    """The user must act: an argument, a config file or an input file is wrong."""

    exit_code = EXIT_BAD_INPUT


class SetupError(SplitbrainError):
    """The environment must be mended: a directory cannot be written, a tool is missing, a node does not start."""


class InternalError(SplitbrainError):
    """We must act: something that cannot happen has happened."""


class Interrupted(SplitbrainError):
    """The user pressed Ctrl-C; what was recorded so far is kept and checked."""

    exit_code = EXIT_UNKNOWN
