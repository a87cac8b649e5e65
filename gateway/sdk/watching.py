"""Watching a job from an event loop: as many at a time as there are, none blocking another.

Example::

    async with JobWatch(Address("https://gateway.example"), Account(user, password)) as watch:
        job = await watch.follow("job_…", print, timeout_seconds=3600)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from gateway.sdk import problems, records, transport
from gateway.sdk.follow import Following, OnChange, Pace
from gateway.sdk.login import Account
from gateway.sdk.problems import GatewayProblem
from gateway.sdk.records import Job
from gateway.sdk.transport import RetryPolicy, v1

# Nobody looks at what a machine waits for: a question a second would be for nothing.
UNHURRIED = Pace(first_seconds=1.0, longest_seconds=5.0)

_QUESTION = httpx.Timeout(30.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is, and who may vouch for it: as for :class:`~.transport.Transport`."""

    url: str
    ca: Path | None = None
    allow_http: bool = False


class JobWatch:
    """A logged-in connection that asks for jobs; belongs to one event loop.

    Raises
    ------
    ValueError
        The address is not one, or not safe.
    """

    def __init__(
        self, address: Address, account: Account, policy: RetryPolicy | None = None
    ) -> None:
        self._base = transport.checked(address.url, allow_http=address.allow_http)
        self._ca = address.ca
        self._account = account
        self._policy = policy or RetryPolicy()
        self._token = ""

    async def __aenter__(self) -> Self:
        # Reading the system's authorities takes 50 ms, which others in the loop need not wait.
        trust = await asyncio.to_thread(transport.trust, self._base, self._ca)
        self._http = httpx.AsyncClient(
            base_url=self._base,
            verify=trust,
            timeout=_QUESTION,
            trust_env=not transport.is_loopback(self._base.host),
            headers={"User-Agent": f"ingestion-gateway/{transport.version()}"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def follow(
        self, job_id: str, on_change: OnChange, *, timeout_seconds: float, pace: Pace = UNHURRIED
    ) -> Job:
        """Return a job once it has ended; a gateway that is away meanwhile is waited for.

        Raises
        ------
        FollowTimeoutError
            The job had not ended in time. It goes on without us.
        GatewayProblem
            The gateway refused, or was away when the time was up.
        """
        following = Following(on_change, timeout_seconds=timeout_seconds, pace=pace)
        failures = 0
        while True:
            try:
                answered, wanted_seconds = await self.poll(job_id)
            except GatewayProblem as problem:
                if not problem.retryable or not following.left_seconds:
                    raise
                away_seconds = self._policy.wait_seconds(failures, problem.retry_after_seconds)
                failures += 1
                await asyncio.sleep(min(away_seconds, following.left_seconds))
            else:
                ended = following.take(answered)
                if ended is not None:
                    return ended
                failures = 0
                await asyncio.sleep(following.rest_seconds(wanted_seconds))

    async def poll(self, job_id: str) -> tuple[Job, float | None]:
        """Return a job, and in how many seconds the gateway wants to be asked again."""
        answer = await self._ask("GET", v1("jobs", job_id))
        wanted_seconds = problems.retry_after_seconds(answer.headers)
        return records.job(records.json_object(answer)), wanted_seconds

    async def cancel(self, job_id: str) -> Job:
        """End a job; the account must be an operator's."""
        answer = await self._ask("POST", v1("jobs", job_id, "cancel"))
        return records.job(records.json_object(answer))

    async def _ask(self, method: str, path: str) -> httpx.Response:
        if self._token:
            try:
                return await self._send(method, path)
            except GatewayProblem as problem:
                if problem.status != httpx.codes.UNAUTHORIZED:
                    raise
        # There is none yet, or it has lapsed.
        self._token = await self._sign_in()
        return await self._send(method, path)

    async def _sign_in(self) -> str:
        answer = await self._exchange("POST", "v1/token", form=self._account.as_form())
        return records.required(records.json_object(answer), "access_token")

    async def _send(self, method: str, path: str) -> httpx.Response:
        return await self._exchange(method, path, token=self._token)

    async def _exchange(
        self, method: str, path: str, *, token: str = "", form: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = await self._http.request(method, path, headers=headers, data=form)
        except httpx.TransportError as error:
            retryable = transport.may_pass(error)
            raise problems.unreachable(error, retryable=retryable) from error
        if not answer.is_success:
            raise problems.from_response(answer)
        return answer
