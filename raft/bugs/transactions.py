"""Defects of transactions: of conditions that are not looked at, and of writes that are not done together."""

from __future__ import annotations

from raft.api import Json, Response, Txn
from raft.keys import canonical
from raft.kv import KeyValue


class GuardsUnchecked(KeyValue):
    """A transaction is applied whether its guards hold or not."""

    __slots__ = ()

    def _on_txn(self, txn: Txn, client: str) -> Response:
        return super()._on_txn(Txn(txn.ops), client)


class TxnInTwoParts(KeyValue):
    """All writes of a transaction but the first are done only after the next entry of the log."""

    __slots__ = ("_rest",)

    def __init__(self, *bounds: int) -> None:
        super().__init__(*bounds)
        self._rest: list[tuple[str, Json]] = []

    def apply(self, data: bytes) -> Response:
        """Applies an entry, and then what was left of the one before."""
        rest, self._rest = self._rest, []
        answer = super().apply(data)
        for key, value in rest:
            self._put(key, canonical(value), "")
        self.keys.commit()
        return answer

    def _on_txn(self, txn: Txn, client: str) -> Response:
        written = [key for kind, key, _ in txn.ops if kind != "r"]
        before = {key: self.value_of(key) for key in written[1:] if key != written[0]}
        answer = super()._on_txn(txn, client)
        for key, held in before.items():
            new = self.value_of(key)
            if new != held:
                self._rest.append((key, new))
                self._put(key, canonical(held), "")
        return answer
