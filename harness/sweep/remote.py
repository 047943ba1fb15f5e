"""Worker processes on other machines: a Dask cluster, through the interface of `concurrent.futures`.

Rules of this module
    1. Dask is an extra: it is imported when it is asked for.
    2. A task that was lost with its worker is run elsewhere by Dask's scheduler; one that has lost several workers
       fails with `KilledWorker`, which is the result of its seed. If the scheduler itself is gone, the sweep ends and
       can be resumed.
    3. The workers need the same splitbrain; that is tried before the sweep begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from importlib import metadata
from typing import Any

from harness.errors import ConfigError

CONNECT_TIMEOUT_S = 5.0
HELLO_TIMEOUT_S = 60.0


def version() -> str:
    """The version of splitbrain where this is called."""
    return metadata.version("splitbrain")


@contextlib.contextmanager
def dask(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on the cluster with that scheduler, and how many tasks it can run at a time.

    Raises:
        ConfigError: the package is missing, nothing answers at that address, or the workers lack splitbrain.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigError("--dask needs the package distributed; pip install 'splitbrain[dask]'") from None
    try:
        client: Any = Client(address, timeout=CONNECT_TIMEOUT_S)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"dask {address}: no scheduler answers ({error}); start one with `dask scheduler` and give its address"
        ) from None
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ConfigError(f"dask {address}: it has no workers; start some with `dask worker {address}`")
        _greet(client, address)
        yield client.get_executor(pure=False), threads
    finally:
        with contextlib.suppress(OSError, TimeoutError):  # a scheduler that is gone cannot be told good-bye
            client.close(timeout=CONNECT_TIMEOUT_S)


def _greet(client: Any, address: str) -> None:
    try:
        theirs = client.submit(version, pure=False).result(timeout=HELLO_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - whatever a worker says to it
        raise ConfigError(
            f"dask {address}: its workers cannot run splitbrain ({error!r}); install it where they run"
        ) from None
    if theirs != version():
        raise ConfigError(
            f"dask {address}: its workers have splitbrain {theirs}, here is {version()}; install the same"
        )
