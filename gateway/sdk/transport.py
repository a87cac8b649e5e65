"""One HTTP exchange with the gateway, and when and how often it is repeated."""

from __future__ import annotations

import contextlib
import importlib.metadata
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import httpx

from gateway.sdk import problems

T = TypeVar("T")

_CONNECTED = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})

# A large file is on disk before it is acknowledged, which may take the gateway minutes.
TIMEOUT = httpx.Timeout(60.0, connect=10.0, read=300.0, pool=None)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a failing exchange is repeated.

    Parameters
    ----------
    deadline_seconds
        How long an exchange may go on failing, counted from its first failure.
    base_seconds, cap_seconds
        The n-th wait is drawn evenly from 0 to ``base * 2**n``, at most ``cap`` (full jitter:
        clients that failed together do not come back together), added to any ``Retry-After``.
    """

    deadline_seconds: float = 300.0
    base_seconds: float = 0.5
    cap_seconds: float = 30.0

    def wait_seconds(self, attempt: int, retry_after_seconds: float | None) -> float:
        """Return how long to wait after the failed attempt of this number (from 0)."""
        widest = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt, 30))
        return (retry_after_seconds or 0.0) + random.uniform(0.0, widest)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, which can be sent again: ``body`` makes a new stream for each attempt."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    body: Callable[[], Iterable[bytes]] | None = None


def v1(*segments: str) -> str:
    """Return the path of a call, whatever its names hold."""
    return "/".join(["v1", *(quote(segment, safe="") for segment in segments)])


class Patience:
    """What is left of a policy for one thing that goes on failing."""

    def __init__(self, policy: RetryPolicy, pause: Callable[[float], None]) -> None:
        self._policy = policy
        self._pause = pause
        self.renew()

    def renew(self) -> None:
        """Start again: there was progress."""
        self._attempt, self._deadline = 0, 0.0

    def bear(self, problem: problems.GatewayProblem) -> None:
        """Wait until another attempt is due, or raise the problem when there is to be none."""
        self._deadline = self._deadline or time.monotonic() + self._policy.deadline_seconds
        wait_seconds = self._policy.wait_seconds(self._attempt, problem.retry_after_seconds)
        if not problem.retryable or time.monotonic() + wait_seconds > self._deadline:
            raise problem
        self._pause(wait_seconds)
        self._attempt += 1


class Transport:
    """Sends exchanges to one gateway; safe to share between threads.

    Parameters
    ----------
    url
        The gateway's base URL. ``http://`` is refused beyond this machine unless ``allow_http``:
        it would show the password to the network (RFC 6749, section 2.3.1).
    ca
        PEM file of the authorities that may vouch for the gateway; default: the system's.

    Raises
    ------
    ValueError
        The URL is not one, or not safe.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        policy: RetryPolicy | None = None,
        allow_http: bool = False,
    ) -> None:
        base = checked(url, allow_http=allow_http)
        self.policy = policy or RetryPolicy()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._http = httpx.Client(
            base_url=base,
            verify=trust(base, ca),
            timeout=TIMEOUT,
            trust_env=not is_loopback(base.host),
            headers={"User-Agent": f"ingestion-gateway/{version()}"},
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def abort(self) -> None:
        """Make every exchange under way in any thread end now, with ``AbortedError``.

        Notes
        -----
        A thread that waits for an answer would notice only minutes later. Closing its socket
        would not wake it; shutting the connection down does.
        """
        self._stop.set()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def resume(self) -> None:
        """Take exchanges again after :meth:`abort`."""
        self._stop.clear()

    def check(self) -> None:
        """Raise ``AbortedError`` when aborted."""
        self.pause(0)

    def call(self, exchange: Exchange, token: str = "") -> httpx.Response:
        """Send an exchange until it succeeds, is refused for good, or the deadline passes.

        Raises
        ------
        GatewayProblem
            The last attempt's.
        AbortedError
            :meth:`abort` was called.
        """
        return self._repeat(lambda: self.once(exchange, token))

    def once(self, exchange: Exchange, token: str = "") -> httpx.Response:
        """Do as :meth:`call`, but do not repeat it."""
        self.check()
        response = self._open(exchange, token)
        try:
            response.read()
        except httpx.TransportError as error:
            raise problems.unreachable(error) from error
        finally:
            response.close()
        return response

    def open(self, exchange: Exchange, token: str = "") -> httpx.Response:
        """Do as :meth:`call`, but leave the answer's body to be read and closed by the caller."""
        return self._repeat(lambda: self._open(exchange, token))

    def patience(self) -> Patience:
        """Return the policy's patience for something that is repeated in a way of its own."""
        return Patience(self.policy, self.pause)

    def pause(self, seconds: float) -> None:
        """Wait, unless aborted."""
        if self._stop.wait(seconds):
            raise problems.AbortedError("Interrupted")

    def _repeat(self, attempt_once: Callable[[], T]) -> T:
        patience = self.patience()
        while True:
            self.check()
            try:
                return attempt_once()
            except problems.GatewayProblem as problem:
                patience.bear(problem)

    def _open(self, exchange: Exchange, token: str) -> httpx.Response:
        try:
            response = self._http.send(self._request(exchange, token), stream=True)
            if not response.is_success:
                response.read()
                response.close()
        except httpx.TransportError as error:
            raise problems.unreachable(error, retryable=may_pass(error)) from error
        if not response.is_success:
            raise problems.from_response(response)
        return response

    def _request(self, exchange: Exchange, token: str) -> httpx.Request:
        headers = dict(exchange.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self._http.build_request(
            exchange.method,
            exchange.path,
            params=dict(exchange.params) or None,
            headers=headers,
            json=exchange.json,
            data=exchange.form,
            content=self._watched(exchange.body) if exchange.body else None,
            extensions={"trace": self._note_connection},
        )

    def _note_connection(self, event: str, told: Mapping[str, Any]) -> None:
        if event in _CONNECTED:
            with self._lock:
                self._sockets.add(told["return_value"].get_extra_info("socket"))

    def _watched(self, body: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        for chunk in body():
            self.check()
            yield chunk


def trust(base: httpx.URL, ca: Path | None) -> ssl.SSLContext:
    """Return who may vouch for the gateway: nobody where no TLS is spoken, for it takes 50 ms."""
    if base.scheme == "http" and is_loopback(base.host):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=ca)


def checked(url: str, *, allow_http: bool) -> httpx.URL:
    """Return a gateway's base URL.

    Raises
    ------
    ValueError
        It is not one, or not safe to send a password to.
    """
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if base.scheme not in {"http", "https"} or not base.host or base.userinfo or base.query:
        raise ValueError(f"{url!r} is not the https:// address of a gateway")
    if base.scheme == "http" and not (allow_http or is_loopback(base.host)):
        raise ValueError(f"{url!r} would send the password unencrypted: use https://")
    return base


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_pass(error: httpx.TransportError) -> bool:
    """Whether a failure without an answer may be gone next time: a bad certificate is not."""
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def version() -> str:
    """Return this package's version, as gateways are told it."""
    try:
        return importlib.metadata.version("ingestion-gateway")
    except importlib.metadata.PackageNotFoundError:
        return "0"
