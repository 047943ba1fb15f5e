"""Workloads: what clients ask of the system, and what must hold of the answers."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from checkers.catalogue import run_checker
from checkers.history import CheckerCallError, History
from harness.config import Config
from harness.errors import ConfigError
from harness.workloads.base import Option, Workload
from harness.workloads.collections import QUEUE, SET, SET_FULL, TOTAL_QUEUE
from harness.workloads.coordination import (
    LeaseWorkload,
    LockSetWorkload,
    LockWorkload,
    LogWorkload,
    MembershipWorkload,
    WatchWorkload,
)
from harness.workloads.numbers import BankWorkload, CounterWorkload, UniqueIdsWorkload
from harness.workloads.readers import (
    CausalReverseWorkload,
    CausalWorkload,
    G2Workload,
    LongForkWorkload,
    MultiRegisterWorkload,
    SessionWorkload,
)
from harness.workloads.register import RegisterWorkload
from harness.workloads.transactions import APPEND, WR

_ALL: tuple[Workload, ...] = (
    RegisterWorkload(),
    SET,
    SET_FULL,
    APPEND,
    WR,
    BankWorkload(),
    CounterWorkload(),
    UniqueIdsWorkload(),
    QUEUE,
    TOTAL_QUEUE,
    LogWorkload(),
    LockWorkload(),
    LockSetWorkload(),
    LeaseWorkload(),
    WatchWorkload(),
    SessionWorkload(),
    CausalWorkload(),
    CausalReverseWorkload(),
    LongForkWorkload(),
    G2Workload(),
    MultiRegisterWorkload(),
    MembershipWorkload(),
)
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}


def by_name(name: str) -> Workload:
    """The workload of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return WORKLOADS[name]
    except KeyError:
        raise ConfigError(f"unknown workload {name!r}; known: {', '.join(WORKLOADS)}") from None


def settings_of(config: Config) -> dict[str, Any]:
    """A value for every option of the configuration's workload: what the user set, else the default.

    Raises:
        ConfigError: an option that the workload does not have, or a value out of its range.

    >>> settings_of(Config(workload_options={"keys": 3}))
    Traceback (most recent call last):
    harness.errors.ConfigError: the workload register has no option 'keys'; it has cas
    """
    workload = by_name(config.workload)
    settings = {name: option.default for name, option in workload.options.items()}
    for name, value in config.workload_options.items():
        if name not in settings:
            close = difflib.get_close_matches(name, settings, n=1)
            known = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(settings) or 'none'}"
            raise ConfigError(f"the workload {workload.name} has no option {name!r}; {known}")
        settings[name] = _fitting(name, value, workload.options[name])
    if config.workload_options:
        _try_checkers(workload, settings)
    return settings


def _try_checkers(workload: Workload, settings: Mapping[str, Any]) -> None:
    """A word that a checker does not know is to be told before the run, and not after it."""
    for call in workload.checkers(settings):
        try:
            run_checker(call, History(()))
        except CheckerCallError as error:
            raise ConfigError(f"workload {workload.name}: {error}") from None


def _fitting(name: str, value: Any, option: Option) -> Any:
    """The value in the type of the option's default, if it is one of those."""
    kind = type(option.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"workload option {name} is {json.dumps(value)}; give {_KINDS[kind]}")
    if isinstance(value, int | float) and kind is not bool and not option.low <= value <= option.high:
        raise ConfigError(f"workload option {name} is {value}; give {option.low:g} to {option.high:g}")
    return value


_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
