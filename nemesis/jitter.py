"""The shapes of delay and loss: how chance becomes milliseconds and bursts, the same for simulator and queue.

Rules of this module
    1. Pure, on numbers in [0, 1) that somebody drew; `netem` in the kernel means the same by the same rule, within
       the tolerances that `tests/system` states.
    2. A correlated delay is mixed of the drawn number and the one before, by the correlation, which narrows its
       spread. netem says that it does the same, and does not (measured: no correlation at all).
    3. A correlated loss keeps its share: with probability `loss_correlation` the fate of a message is that of
       the one before it, otherwise it is drawn. For netem that is a Gilbert chain (`netem_loss`). What netem
       itself calls correlation of loss is not used: 20 % at a correlation of 75 % lose well below 1 % there.

>>> extra_ms(LinkRule(jitter_ms=20), 0.25)
5.0
>>> round(extra_ms(LinkRule(jitter_ms=20, distribution="normal"), 0.975), 2)
19.8
>>> netem_loss(LinkRule(loss=0.2, loss_correlation=0.75))
'gemodel 5% 20%'
"""

from __future__ import annotations

import math
from statistics import NormalDist

from nemesis.target import LinkRule

_NORMAL = NormalDist()
# Pareto with the shape 3, as in netem's table, brought to mean 0 and deviation 1; both tables end at 4 deviations.
_PARETO_SHAPE, _PARETO_MEAN, _PARETO_DEVIATION = 3.0, 1.5, math.sqrt(0.75)
_DEVIATIONS_MAX = 4.0
_U_MIN = 1e-6


def extra_ms(rule: LinkRule, u: float) -> float:
    """The jitter that the drawn number u makes; with a distribution it may be below zero."""
    if rule.distribution == "uniform":
        return rule.jitter_ms * u
    return rule.jitter_ms * (0.5 + 0.25 * _deviations(rule.distribution, u))


def mixed(u: float, last_u: float, correlation: float) -> float:
    """A drawn number pulled towards the one before it."""
    return u + (last_u - u) * correlation


def netem_loss(rule: LinkRule) -> str:
    """The loss of the rule in netem's words."""
    if not rule.loss_correlation:
        return f"{plain(rule.loss * 100)}%"
    fresh = 1 - rule.loss_correlation
    return f"gemodel {plain(100 * rule.loss * fresh)}% {plain(100 * (1 - rule.loss) * fresh)}%"


def plain(value: float) -> str:
    """The number without an exponent, which tc would not read everywhere."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _deviations(distribution: str, u: float) -> float:
    u = min(max(u, _U_MIN), 1 - _U_MIN)
    normal = _NORMAL.inv_cdf(u)
    if distribution == "normal":
        return max(-_DEVIATIONS_MAX, min(normal, _DEVIATIONS_MAX))
    pareto = (math.pow(1 - u, -1 / _PARETO_SHAPE) - _PARETO_MEAN) / _PARETO_DEVIATION
    mixture = pareto if distribution == "pareto" else 0.25 * normal + 0.75 * pareto
    return float(max(-_DEVIATIONS_MAX, min(mixture, _DEVIATIONS_MAX)))
