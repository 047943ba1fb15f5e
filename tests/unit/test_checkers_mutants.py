"""Checkers broken on purpose: each must be caught by comparing with the oracle, as the other tests do.

A mutant is one replacement in the text of a module. One that is not caught would be a mistake that the
tests do not notice.
"""

import random
import sys
import time
from pathlib import Path

import pytest

import checkers
from checkers import Operation, model_by_name, problem, search, zones
from checkers.oracle import is_linearizable
from checkers.registers import Plain, columns_of, solve
from checkers.witness import replay, verify
from harness.module_files import module_from_file
from tests.mutants import mutant

SEARCH = {
    "R1 forgets that reads went in": ("used |= bit\n                observed = True", "observed = True"),
    "R2 takes the one that returns last": ("problem.ret[place] < problem.ret[other]", "False"),
    "R3 makes everything optional": (
        "if problem.effect[problem.kind[place]] in unseen and not config.used & bits[place]:",
        "if not config.used & bits[place]:",
    ),
    "R3 never absorbs": ("opt |= bits[place]\n        return opt", "opt |= 0\n        return opt"),
    "R4 marks what is impossible": (
        "if problem.next(kind, state) != state:",
        "if problem.next(kind, state) not in (state, -1):",
    ),
    "R5 tries no overwrite but the returning one": (
        "if idle or not self._wanted(state, watchers):\n                    continue",
        "continue",
    ),
    "R5 skips an overwrite without effect": (
        "idle = state == config.state and opt & ~bit == config.opt & ~bit",
        "idle = state == config.state",
    ),
    "R6 keeps the larger counts": ("return all(a <= b for", "return all(a >= b for"),
    "R6 drops whatever has the same state": ("return not different & ~one.opt and", "return"),
    "info operations never happen": (
        "if config.infos[number] < len(calls) and calls[config.infos[number]] < horizon",
        "if False",
    ),
    "info operations happen before their call": (" and calls[config.infos[number]] < horizon", ""),
    "info operations happen again and again": ("counts[number] + 1,", "counts[number],"),
    "a slot is not given back": ("config.used & ~bit, config.opt & ~bit", "config.used, config.opt"),
    "the last return is not looked at": (
        "range(len(self.levels.rets)):\n                recent",
        "range(len(self.levels.rets) - 1):\n                recent",
    ),
}  # fmt: skip

PROBLEM = {
    "info dropped although a refused cas needs it": (
        'if any(code[0] == "differs" for code in codes):',
        "if False:",
    ),
    "values merged that a cas expects": (
        'if codes[place][0] != "write" and',
        'if codes[place][0] == "read" and',
    ),
    "every info operation dropped": ("not info or code[-1] in observed", "not info"),
}

ZONES = {
    "forward zones may overlap": ("if last >= 0 and zone_f[z] < zone_s[last]:", "if False:"),
    "backward zones may lie inside": (
        "if last >= 0 and zone_f[z] < zone_s[last]:",
        "if last >= 0 and zone_f[z] < zone_s[last] and zone_f[z] < zone_s[z]:",
    ),
    "a read may precede its write": ("if first_ret[u] < high:", "if first_ret[u] < -1:"),
    "a cas may come too late": ("if ret[x] < high:", "if ret[x] < -1:"),
    "a value may come from nowhere": ("                if reads[v] > 0:", "                if False:"),
    "an unseen info write counts": ("if ret[w] >= NEVER and not observed[v]:", "if False:"),
    "a refused cas goes anywhere": (
        "if value != a[i]:\n                found = at",
        "if True:\n                found = at",
    ),
    "a refused cas forgets earlier ones": ("at = max(after[r], floor[k])", "at = after[r]"),
}  # fmt: skip


# What these mutants break is seldom seen in random histories, so it is shown to them.
def o(f, argument, result, call, ret, status="ok"):
    return Operation(0, f, None, argument, result, status, call, ret, call, ret)


ABSORBED = [
    o("append", "a", None, 1, 5),
    o("put", "c", None, 7, 14),
    o("put", "a", None, 9, 16),
    o("append", "b", None, 10, 12),
    o("get", None, "ab", 11, 18),
    o("get", None, "ab", 15, 17),
]
REFUSED_IN_TURN = [
    o("write", 1, 1, 0, 20),
    o("cas", (0, 9), None, 1, 2, "mismatch"),
    o("cas", (1, 8), None, 3, 4, "mismatch"),
]


def cases():
    """Histories with their models: some by hand, the others from seeds."""
    from_search = sys.modules["test_checkers_search"]
    yield ABSORBED, model_by_name("string-kv")
    for seed in range(2_500):
        yield from_search.random_case(seed, sorted(from_search.CASES)[seed % len(from_search.CASES)])


def unique_cases():
    from_zones = sys.modules["test_checkers_zones"]
    yield REFUSED_IN_TURN, model_by_name("etcd-register", 0)
    for seed in range(2_500):
        yield from_zones.random_case(seed)


@pytest.fixture(scope="module", autouse=True)
def _generators():
    """The modules whose random histories are used here; a test's module is not imported."""
    for name in ("test_checkers_search", "test_checkers_zones"):
        if name not in sys.modules:
            module_from_file(Path(__file__).with_name(f"{name}.py"))


def caught_by_search(search_module, problem_module):
    """Whether some history shows a wrong verdict, a witness that does not hold, or a crash."""
    for history, model in cases():
        expected = is_linearizable(history, model)
        compiled = problem_module.compile_problem(history, model)
        for order in ("dfs", "bfs"):
            searcher = search_module.Searcher(
                compiled, search_module.Meter(20_000, 10**9, time.monotonic() + 100)
            )
            try:
                outcome = getattr(searcher, order)()
                if outcome.valid is not expected:
                    return True
                if outcome.valid:
                    verify(replay(compiled, searcher.levels, outcome.trail), history, model)
            except Exception:  # noqa: BLE001  (a crash is noticed too)
                return True
    return False


class Mutated(Plain):
    """The plain backend with the kernels of a mutant."""

    def __init__(self, module):
        self.module = module

    def kernel(self, kernel):
        return getattr(self.module, kernel.__name__)


def caught_by_zones(module):
    for history, model in unique_cases():
        expected = is_linearizable(history, model)
        try:
            (status,) = solve(columns_of({None: history}, model), Mutated(module)).status
        except Exception:  # noqa: BLE001
            return True
        if (status == zones.FITS and not expected) or (status == zones.VIOLATION and expected):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCH)
def test_mutants_of_the_search_are_caught(name):
    """Each reduction done wrongly gives a wrong verdict somewhere."""
    assert caught_by_search(mutant(search, *SEARCH[name]), problem)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEM)
def test_mutants_of_what_is_left_out_are_caught(name):
    """Each thing left out wrongly gives a wrong verdict somewhere."""
    assert caught_by_search(search, mutant(problem, *PROBLEM[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ZONES)
def test_mutants_of_the_zones_are_caught(name):
    """By the oracle, or by the verification of the order."""
    assert caught_by_zones(mutant(zones, *ZONES[name]))


@pytest.mark.slow
def test_the_originals_are_not_caught():
    """Otherwise the tests above would say nothing."""
    assert not caught_by_search(search, problem)
    assert not caught_by_zones(zones)


def test_random_seeds_do_not_depend_on_hashes():
    """Seeds are strings, which `random` takes the same way everywhere."""
    assert random.Random("x 1").random() == random.Random("x 1").random()
    assert sorted(checkers.__all__, key=lambda name: (not name.isupper(), name)) == checkers.__all__
