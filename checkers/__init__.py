r"""Checkers: pure functions from a history to a verdict, and the history format itself.

>>> from checkers import History, Op, check_linearizable
>>> verdict = check_linearizable([
...     Op(0, 10, 0, "invoke", "write", value=1), Op(1, 20, 0, "ok", "write", value=1),
...     Op(2, 30, 1, "invoke", "read"), Op(3, 40, 1, "ok", "read", value=1),
... ], "register")
>>> print(*verdict.lines(), sep="\n")
valid: linearizable with model register: 2 operations, zones
"""

from checkers import drawing, fast
from checkers.effects import Effect, Inconsistent
from checkers.fast import warm_up
from checkers.formats import encode_header, encode_op, parse_history, read_history
from checkers.history import History, HistoryError, Op, Operation
from checkers.linear import ALGORITHMS, Budget, check_linearizable
from checkers.models import MODELS, Model, default_model, model_by_name
from checkers.stats import check_stats
from checkers.verdict import Verdict, merge

__all__ = [
    "ALGORITHMS",
    "MODELS",
    "Budget",
    "Effect",
    "History",
    "HistoryError",
    "Inconsistent",
    "Model",
    "Op",
    "Operation",
    "Verdict",
    "check_linearizable",
    "check_stats",
    "default_model",
    "drawing",
    "encode_header",
    "encode_op",
    "fast",
    "merge",
    "model_by_name",
    "parse_history",
    "read_history",
    "warm_up",
]
