"""What a system under test must offer: a way to run a node, and a client that tells the truth about outcomes.

The outcome rule (rule 1 of the design), in one place
    ``ok``    the system answered that it was done
    ``fail``  it certainly never happened and never will: the system refused it before doing anything, or it told
              us that the condition was not met
    ``info``  everything else: timeouts, broken connections, "leader changed", any error we do not know

    A client may retry inside one operation only what is safe to retry: a definite refusal always; an unknown
    outcome only where the system makes retries idempotent (client sessions). When time runs out after any attempt
    whose outcome is unknown, the operation is ``info``; when every attempt was refused, it is ``fail``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from harness.sim.files import SimFiles
from harness.sim.host import Process, SimHost
from harness.transport import Transport
from nemesis.target import CrashPoint


class Outcome(msgspec.Struct, frozen=True):
    """How an operation ended; see the module.

    Attributes:
        type: ok, fail or info.
        value: what was read or done, where the answer tells more than the question; of an ``info``, what was tried
            (the element that a lost dequeue may have taken). None where the question says it all.
        error: why it is not ok, as a short token.
        node: the node that answered last, where one did.
        revision: which change of the key it made or saw, where the system numbers them.
    """

    type: Literal["ok", "fail", "info"]
    value: Any = None
    error: str | None = None
    node: str | None = None
    revision: int | None = None


class Client(Protocol):
    """One process' connection to the system; used for one operation at a time."""

    async def invoke(self, f: str, key: Any, value: Any) -> Outcome:
        """Perform an operation and say how it ended; never raises for what the system did."""

    async def close(self) -> None:
        """Give up; late answers are discarded."""


class ClientOptions(msgspec.Struct, frozen=True):
    """Time-outs of a client, in milliseconds.

    Attributes:
        op_timeout_ms: after this an operation is over.
        attempt_timeout_ms: after this an attempt is given up and, where that is safe, made again elsewhere.
        backoff_ms: pause before asking again when no leader is known.
        session_ttl_ms: open a session that ends after so long without a write, if the system has such; 0 for none.
        follows_leader: ask first whoever answered last, not always the node that the client is bound to.
        workload: which of the system's contracts the client keeps to.
        settings: the workload's options.
    """

    op_timeout_ms: int = 1000
    attempt_timeout_ms: int = 350
    backoff_ms: int = 25
    session_ttl_ms: int = 0
    follows_leader: bool = False
    workload: str = "register"
    settings: dict[str, Any] = {}


@runtime_checkable
class LoggedClient(Protocol):
    """A client that knows which of its requests need an entry of the system's log.

    Attributes:
        logged: of the operation that was invoked last: name of the client, and number of the request.
    """

    logged: list[tuple[str, int]]


#: By name of a client and number of its request: index of its first entry, and when in ns of the run it was committed.
CommittedRequests = Mapping[tuple[str, int], tuple[int, int]]


class LoggedEntry(NamedTuple):
    """A committed entry of a log: its index, its term, and the client and number of its request, if it has one."""

    place: int
    term: int
    request: tuple[str, int] | None


class LogPart(NamedTuple):
    """Committed entries in order, the first one after that index; and up to where the node knows it to be committed."""

    after: int
    commit_index: int
    entries: Sequence[LoggedEntry]


class Bug(Protocol):
    """A seeded bug of a system: one decision made wrongly."""

    @property
    def name(self) -> str:
        """What `--bug` takes."""

    @property
    def summary(self) -> str:
        """What is wrong, in a sentence."""


class Call(NamedTuple):
    """A request as it goes over HTTP."""

    method: str
    path: str
    body: bytes


class Service(Protocol):
    """How a node of a system runs as a process of its own, and how one speaks to it.

    Attributes:
        client_port: where every node listens to clients.
        status_path: what to GET for a node's view of itself, as JSON.
        leader_path: what to GET to ask whether a node leads: 200 where it does, and only there.
        refusal: the body of an answer that says: refused before anything was done.
    """

    client_port: int
    status_path: str
    leader_path: str
    refusal: bytes

    def argv(
        self, python: str, node: str, addresses: Mapping[str, str], data: Path, bug: str | None
    ) -> list[str]:
        """The command line of a node, where `addresses` names all nodes and `data` is its directory."""

    def encode(self, request: Any) -> Call:
        """What a client asks, on the wire."""

    def decode(self, status: int, body: bytes) -> Any:
        """What the client is answered; never raises: an answer that makes no sense is an unknown outcome."""

    def event(self, line: str) -> tuple[int, str, dict[str, Any]] | None:
        """What a line of a node's log says: its monotonic clock in nanoseconds, the event, and its fields."""

    def leader_term(self, status: Any) -> int | None:
        """The term in which the node with this status thinks it leads; None where it does not."""


class Watch(Protocol):
    """Sees what no client sees: whether the nodes keep the system's own invariants.

    Attributes:
        violations: sentences.
        violated_us: when the first of them was seen, on the clock of the simulation.
        on_violated: is called at that moment.
    """

    violations: list[str]
    violated_us: int | None
    on_violated: Callable[[], None] | None

    def committed(self, leader: Any) -> CommittedRequests | str:
        """What is in the committed log, if this program leads; times in microseconds. Or why that is not known."""


class Machine(Protocol):
    """A machine of a simulated world, as far as a program must be told of it.

    Attributes:
        name: of the node.
        files: its disk.
        joins: it starts with an empty disk, as a new member.
    """

    name: str
    files: SimFiles
    joins: bool

    def observe(self, event: str, **fields: Any) -> None:
        """Is told what the program does."""

    def reached(self, point: CrashPoint) -> None:
        """The program is at this point, which may be its last (`harness.sim.trouble.Crashed`)."""


class WholeProgram(Protocol):
    """One life of a node's real program."""

    async def run(self) -> None:
        """Serve until killed; a `DiskError` is the disk's fault, everything else is its own."""

    def leader_term(self) -> int | None:
        """The term in which this node thinks that it leads, or None."""


class System(Protocol):
    """A system under test.

    Attributes:
        contracts: the workloads that its clients can serve, by name.
    """

    name: str
    bugs: Mapping[str, Any]
    contracts: Mapping[str, Any]
    service: Service

    def watch(self, now_us: Callable[[], int]) -> Watch:
        """What looks at all nodes of a simulated cluster while they run."""

    def sim_process(self, host: SimHost, nodes: tuple[str, ...], bug: str | None, watch: Any) -> Process:
        """A node's program for the simulator."""

    def whole_program(
        self, machine: Machine, addresses: Mapping[str, str], bug: str | None, watch: Any
    ) -> WholeProgram:
        """A node's real program for a simulated world, where `addresses` names all nodes."""

    def client(
        self, transport: Transport, nodes: tuple[str, ...], home: str, client_id: str, options: ClientOptions
    ) -> Client:
        """A client that prefers the node `home`."""
