"""Cases in interleaved rounds, and what each has shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from deploy.bench import ours, peers
from deploy.bench.driving import RunError
from deploy.bench.ours import Gateway
from deploy.bench.servers import Server
from deploy.bench.table import Figures
from deploy.local.lasting import Lasting
from deploy.local.postgres import Postgres
from deploy.local.programs import StackError

T = TypeVar("T")
# One run's figures, by what they measure.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """One thing measured once a round.

    Attributes
    ----------
    warm
        A small run before the first round, so that nothing is loaded while the clock runs.
    """

    name: str
    run: Callable[[], Sample]
    warm: Callable[[], object] = lambda: None


@dataclass
class Results:
    """The figures of all cases, or why a case has none."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def of(self, case: str, figure: str = "rate") -> Figures:
        """Return a case's figures, one a round, or the reason of their absence."""
        if case in self.failures:
            return f"{case}: {self.failures[case]}"
        if case not in self.samples:
            return f"{case}: not measured"
        return [each[figure] for each in self.samples[case]]

    def write(self, path: Path) -> None:
        """Write every round's figures."""
        path.write_text(json.dumps({**vars(self)}, indent=1, default=dict) + "\n")


def measure(cases: Sequence[Case], rounds: int, results: Results) -> None:
    """Run all cases once a round; one that fails is left out from then on, and said so."""
    for case in cases:
        _try(case, case.warm, results)
    for number in range(rounds):
        for case in cases:
            if case.name not in results.failures:
                _say(f"round {number + 1}/{rounds}: {case.name}")
                sample = _try(case, case.run, results)
                if sample is not None:
                    results.samples.setdefault(case.name, []).append(sample)
    _say("")


def _try(case: Case, step: Callable[[], T], results: Results) -> T | None:
    if case.name in results.failures:
        return None
    try:
        return step()
    except (RunError, StackError, OSError) as error:
        results.failures[case.name] = str(error)
        print(f"  {case.name}: {error}", file=sys.stderr)
        return None


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


STARTERS = {
    peers.TUSPYSERVER: peers.tuspyserver,
    peers.TUS_NODE: peers.tus_node,
    peers.SFTP: peers.sshd,
    peers.NGINX: peers.nginx,
    peers.COPYPARTY: peers.copyparty,
}


class Fleet(Lasting):
    """All servers: each is started when it is first asked for, and ended with the fleet."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Server] = {}
        self._failed: dict[str, StackError] = {}
        self._database: Postgres | None = None
        self._gateway: Gateway | None = None

    def stop(self) -> None:
        """End every server."""
        self._stack.close()

    @property
    def gateway(self) -> Gateway:
        """The gateway."""
        if self._gateway is None:
            self._gateway = self._stack.enter_context(ours.gateway(self.database))
        return self._gateway

    @property
    def database(self) -> Postgres:
        """The Postgres that the gateway and the peer with a database share."""
        if self._database is None:
            self._database = self._stack.enter_context(ours.database())
        return self._database

    def peer(self, name: str) -> Server:
        """Return a peer.

        Raises
        ------
        StackError
            It is not installed, or does not start; the same each time it is asked for.
        """
        if name in self._failed:
            raise self._failed[name]
        if name not in self._running:
            try:
                self._running[name] = self._start(name)
            except StackError as error:
                self._failed[name] = error
                raise
        return self._running[name]

    def _start(self, name: str) -> Server:
        if name == peers.UPLOAD_FILE:
            url = self.database.create_database("peer", "peer", "bench")
            return self._stack.enter_context(peers.upload_file(url))
        return self._stack.enter_context(STARTERS[name]())
