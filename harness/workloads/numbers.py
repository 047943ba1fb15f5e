"""Workloads of numbers: ``bank``, ``counter``, ``unique-ids``.

Theory of operation
    bank        transfers between accounts, and reads of all of them: the sum never changes. Several banks, each used
                for `ops_per_key` operations; an account that was never written has its first balance.
    counter     additions, some of them negative if `negative` is set, and reads: each must be in its bounds
    unique-ids  identifiers are asked for by everybody at once, from `keys` sequences: no two of one are the same
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.generators import ask
from harness.seeds import Streams, below
from harness.workloads.base import Option, OpTuple, Settings
from harness.workloads.planning import Keys, finals, forever, planned


class BankWorkload:
    """See the module."""

    name = "bank"
    summary = (
        "transfers between accounts and reads of all balances; finds half-done transactions and lost updates"
    )
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "accounts": Option(5, "accounts of a bank", 2, 100),
        "balance": Option(10, "what each account has at first", 1, 1_000_000),
        "max_transfer": Option(5, "the most that is transferred at once", 1, 1_000_000),
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The sum of balances, and none below 0."""
        accounts = settings["accounts"]
        return (CheckerCall("bank", {"total": accounts * settings["balance"], "accounts": accounts}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """As many reads as transfers, then a read of every bank."""
        keys = Keys(config.keys, config.ops_per_key, streams, "bank")
        rng = streams.stream("workload/kinds")

        def operation() -> Any:
            if rng.random() < 0.5:
                return ask("read", keys.next())
            payer = below(rng, settings["accounts"])
            payee = (payer + 1 + below(rng, settings["accounts"] - 1)) % settings["accounts"]
            amount = 1 + below(rng, settings["max_transfer"])
            return ask("transfer", keys.next(), {"from": payer, "to": payee, "amount": amount})

        ops = planned(forever(operation), config, streams)
        return ops, finals(keys.used, config)


class CounterWorkload:
    """See the module."""

    name = "counter"
    summary = "additions to counters and reads; finds increments that are lost or counted twice"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {"negative": Option(default=False, help="whether to subtract, too")}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Bounds."""
        del settings
        return (CheckerCall("counter"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """As many reads as additions, then a read of every counter."""
        keys = Keys(config.keys, config.ops_per_key, streams)
        rng = streams.stream("workload/kinds")

        def operation() -> Any:
            if rng.random() < 0.5:
                return ask("read", keys.next())
            number = 1 + below(rng, 5)
            return ask("add", keys.next(), -number if settings["negative"] and rng.random() < 0.5 else number)

        ops = planned(forever(operation), config, streams)
        return ops, finals(keys.used, config)


class UniqueIdsWorkload:
    """See the module."""

    name = "unique-ids"
    summary = "identifiers asked for by all clients at once; finds one that is given twice"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """No two alike."""
        del settings
        return (CheckerCall("unique-ids"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Nothing but `generate`, of sequences that are never retired."""
        del settings
        rng = streams.stream("workload/keys")
        return planned(forever(lambda: ask("generate", f"k{below(rng, config.keys)}")), config, streams), []
