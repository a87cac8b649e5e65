"""The one check that every request passes: who asks, for which client, with which rights."""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlowPassword, OAuthFlows
from fastapi.security import OAuth2
from sqlalchemy.orm import Session, sessionmaker

from gateway import database, settings
from gateway.clients.rate import RequestRate
from gateway.clients.registry import ClientSuspendedError
from gateway.errors import ForbiddenError, GatewayError, NotFoundError
from gateway.identity import passes, scopes, sessions
from gateway.identity.accounts import Account, Kind
from gateway.identity.directory import Directory
from gateway.identity.membership import Membership
from gateway.identity.tokens import InvalidTokenError, KeyRing, family_of
from gateway.settings import SettingsError

# How long an answer is believed where it is asked for again before anything is acknowledged.
RECALL_SECONDS = 1.0
RECALLED_TOKENS = 4096
# In the state of a request's scope: it was counted among the client's requests of this second.
COUNTED = "is_counted"

_BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)


class NotAuthenticatedError(GatewayError):
    """No access token came with the request."""

    slug = "not-authenticated"
    status = 401
    title = "Send an access token"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class NotAMemberError(ForbiddenError):
    """The token is good; the groups that gave it its rights no longer hold its account."""

    title = "Your account has no rights here any more"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may do right now.

    Attributes
    ----------
    client
        The tenant; None for the platform's own people and services.
    scopes
        What the token carries and the directory still grants.
    groups
        Names of the groups that give these rights.
    suspended
        The client may only look, at present.
    """

    subject: str
    kind: Kind
    client: str | None
    scopes: frozenset[str]
    groups: tuple[str, ...]
    jti: str
    expires_at: int
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """An account and everything its groups give it, for every client."""

    account: Account
    grants: scopes.Grants


@dataclass(frozen=True, slots=True)
class _Recalled:
    """Whom a token stood for, by which account and client's state, and how long that is believed."""

    principal: Principal
    name: str
    account: Account
    client_state: str | None
    good_until: float


class Access:
    """Turns tokens into principals."""

    def __init__(
        self,
        config: settings.Settings,
        database: sessionmaker[Session],
        directory: Directory,
        keys: KeyRing,
    ) -> None:
        """Prepare.

        Raises
        ------
        SettingsError
            A token for Airflow would be taken for one of ours.
        """
        if config.tokens.audience == config.airflow.audience:
            message = "GATEWAY_TOKENS_AUDIENCE: must differ from GATEWAY_AIRFLOW_AUDIENCE"
            raise SettingsError(message)
        self.config = config
        self.database = database
        self.directory = directory
        self._keys = keys
        self.membership = Membership(directory, config.ldap.cache_seconds)
        self.rate = RequestRate(database)
        self._recalled: dict[str, _Recalled] = {}

    def principal(self, token: str) -> Principal:
        """Return who a token stands for, with the rights of this moment.

        Raises
        ------
        InvalidTokenError
            The token is not good here, was revoked, or its account is gone.
        NotAMemberError
            Its account has lost every right that it carries.
        DirectoryUnavailableError
            Group membership is not known and cannot be asked for.
        """
        seen = self._seen(token)
        if seen is not None:
            principal = seen.principal
            if self._standing(principal.jti, principal.client).client_state == seen.client_state:
                return principal
        config = self.config.tokens
        claims = self._keys.verify(token, issuer=config.issuer, audience=config.audience)
        client = claims.get("client")
        standing = self._standing(claims["jti"], client)
        account = self.membership.account(claims["sub"])
        if account is None:
            raise InvalidTokenError
        found = self._now(claims, account, standing.client_state)
        good_until = time.monotonic() + RECALL_SECONDS
        state = standing.client_state
        self._remember(token, _Recalled(found, claims["sub"], account, state, good_until))
        return found

    def recall(self, token: str) -> Principal | None:
        """Return who a token stood for a moment ago, from memory: None where that is not known.

        Only for callers who ask for ``REVOKED`` too, in the transaction that commits what they do.
        """
        seen = self._seen(token)
        return None if seen is None else seen.principal

    def _seen(self, token: str) -> _Recalled | None:
        seen = self._recalled.get(token)
        if seen is None or seen.good_until < time.monotonic():
            return None
        if seen.principal.expires_at <= time.time():
            return None
        return seen if self.membership.recall(seen.name) is seen.account else None

    def is_known(self, token: str) -> bool:
        """Say whether a token was good here lately."""
        return token in self._recalled

    def _remember(self, token: str, seen: _Recalled) -> None:
        if len(self._recalled) >= RECALLED_TOKENS:
            self._recalled.clear()
        self._recalled[token] = seen

    def _standing(self, jti: str, client: str | None) -> sessions.Standing:
        """Ask the database about a token that is good by itself.

        Raises
        ------
        InvalidTokenError
            It was revoked.
        """
        # Ended before the directory is asked: no transaction stays open over the network.
        with self.database() as session:
            database.alone(session)
            found = sessions.standing(session, jti=jti, family=family_of(jti), client=client)
        if found.revoked:
            raise InvalidTokenError
        return found

    def _now(self, claims: dict[str, Any], account: Account, state: str | None) -> Principal:
        client = claims.get("client")
        roles = self.config.roles
        known = {client} if client and state in {"active", "suspended"} else set()
        halted = known if state == "suspended" else set()
        granted = scopes.grants(account.group_names, roles, known, halted)
        effective = scopes.within(claims["scope"].split(), granted.scopes(client))
        if not granted.scopes(client):
            raise NotAMemberError
        return Principal(
            subject=account.name,
            kind=account.kind,
            client=client,
            scopes=effective,
            groups=granted.groups(roles, client),
            jti=claims["jti"],
            expires_at=claims["exp"],
            suspended=state == "suspended",
        )

    def by_pass(self, token: str, batch_id: str) -> Principal:
        """Return whom a pass lets in: one task, to the files of one batch.

        Raises
        ------
        InvalidTokenError
            It never was a pass, has expired or was taken back.
        NotFoundError
            It is for another batch.
        """
        with self.database.begin() as session:
            found = passes.find(session, token)
        if found is None:
            raise InvalidTokenError
        if found.batch_id != batch_id:
            raise NotFoundError
        return Principal(
            subject=found.id,
            kind="service",
            client=found.client,
            scopes=frozenset({scopes.BATCHES_READ}),
            groups=(),
            jti=found.id,
            expires_at=int(found.expires_at.timestamp()),
        )

    def rights(self, name: str) -> Rights | None:
        """Return all that an account may do, and through which groups; None if it is unknown."""
        account = self.membership.account(name)
        return None if account is None else Rights(account, self.grants(account))

    def grants(self, account: Account) -> scopes.Grants:
        """Return what an account's groups give it, for every client there is."""
        roles = self.config.roles
        with self.database.begin() as session:
            states = sessions.client_states(session, scopes.candidates(account.group_names, roles))
        halted = [name for name, state in states.items() if state == "suspended"]
        return scopes.grants(account.group_names, roles, states, halted)


# Part of a larger statement: the ids that are no longer good, of those in ``asked``.
REVOKED = sessions.REVOKED


def asked(principals: Iterable[Principal]) -> dict[str, list[str]]:
    """Return the values of ``REVOKED`` that ask about these principals' tokens."""
    return sessions.asked({each.jti: family_of(each.jti) for each in principals})


def is_revoked(principal: Principal, gone: Container[str]) -> bool:
    """Say whether ``gone``, what ``REVOKED`` found, has the principal's token or its family."""
    family = family_of(principal.jti)
    return principal.jti in gone or (family is not None and family in gone)


def token_of(authorization: str) -> str | None:
    """Return the token of an Authorization header, None where there is none."""
    given = _BEARER.fullmatch(authorization.strip())
    return None if given is None else given.group(1)


# --- for doors --------------------------------------------------------------------------------

_described = {
    scopes.BATCHES_READ: "See batches, jobs and events",
    scopes.BATCHES_WRITE: "Deliver batches",
    scopes.JOBS_WRITE: "Repeat and cancel jobs",
    scopes.AUDIT_READ: "Read the audit trail",
    scopes.ADMIN: "Administer the platform",
    scopes.ADMIN_READ: "See what administrators see",
    scopes.JOBS_PROGRESS: "Report the progress of jobs",
    scopes.LEASES: "Take credentials for running tasks",
}
_scheme = OAuth2(
    flows=OAuthFlows(
        clientCredentials=OAuthFlowClientCredentials(tokenUrl="/v1/token", scopes=_described),
        password=OAuthFlowPassword(tokenUrl="/v1/token", refreshUrl="/v1/token", scopes=_described),
    ),
    scheme_name="gateway",
    description="An access token of `POST /v1/token`.",
    auto_error=False,
)


def _caller(request: Request, authorization: Annotated[str | None, Security(_scheme)]) -> Principal:
    if not authorization:
        raise NotAuthenticatedError
    token = token_of(authorization)
    if token is None:
        raise NotAuthenticatedError
    access: Access = request.app.state.access
    caller = access.principal(token)
    # Whoever tried a shorter way before has counted it.
    if caller.client is not None and not request.scope.get("state", {}).get(COUNTED):
        access.rate.take(caller.client)
    return caller


def is_writer(principal: Principal) -> bool:
    """Say whether ``Writer`` would let a caller in."""
    return principal.client is not None and scopes.BATCHES_WRITE in principal.scopes


def requires(*needed: str, of_a_client: bool = False) -> Any:
    """Return the dependency of a door that takes callers who have all the scopes ``needed``.

    Parameters
    ----------
    of_a_client
        The door serves a client's own objects; the platform's people have none.
    """

    async def check(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
        return _admitted(caller, needed, of_a_client=of_a_client)

    return Depends(check)


def _admitted(caller: Principal, needed: tuple[str, ...], *, of_a_client: bool) -> Principal:
    if of_a_client and caller.client is None:
        message = "This is for accounts of a client."
        raise ForbiddenError(message)
    if not caller.scopes.issuperset(needed):
        raise _missing(caller, needed)
    return caller


@dataclass(frozen=True, slots=True)
class Knock:
    """Somebody at a door that looks itself who it is, in the thread in which it works.

    For doors that are asked again and again: each change of threads waits for its turn. Nothing
    else is to be learned from it, and no fault of the request is told before.
    """

    _request: Request
    _authorization: str | None
    _needed: tuple[str, ...]

    def admitted(self) -> Principal:
        """Return who it is, as ``requires`` does, for a door to a client's own objects; blocks."""
        caller = _caller(self._request, self._authorization)
        return _admitted(caller, self._needed, of_a_client=True)


async def _knocking(
    request: Request, authorization: Annotated[str | None, Security(_scheme)]
) -> Knock:
    return Knock(request, authorization, (scopes.BATCHES_READ,))


def _files_reader(
    request: Request, batch_id: str, authorization: Annotated[str | None, Security(_scheme)]
) -> Principal:
    """Let readers in, and a task with its pass to this very batch."""
    token = token_of(authorization or "")
    if token is None or not token.startswith(passes.PREFIX):
        caller = _caller(request, authorization)
        return _admitted(caller, (scopes.BATCHES_READ,), of_a_client=True)
    access: Access = request.app.state.access
    caller = access.by_pass(token, batch_id)
    access.rate.take(caller.client or "")
    return caller


def requires_one(*needed: str) -> Any:
    """Return the dependency of a door that takes callers who have one of the scopes."""

    async def check(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
        if caller.scopes.isdisjoint(needed):
            raise _missing(caller, needed)
        return caller

    return Depends(check)


def _missing(caller: Principal, needed: tuple[str, ...]) -> ForbiddenError:
    listed = scopes.text(needed)
    headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{listed}"'}
    if caller.suspended:
        return ClientSuspendedError(headers=headers)
    return ForbiddenError(f"This needs the scope {listed}.", headers=headers)


Anyone = Annotated[Principal, requires()]
Reader = Annotated[Principal, requires(scopes.BATCHES_READ, of_a_client=True)]
ReaderKnock = Annotated[Knock, Depends(_knocking)]
FilesReader = Annotated[Principal, Depends(_files_reader)]
Writer = Annotated[Principal, requires(scopes.BATCHES_WRITE, of_a_client=True)]
Operator = Annotated[Principal, requires(scopes.JOBS_WRITE, of_a_client=True)]
Auditor = Annotated[Principal, requires_one(scopes.AUDIT_READ, scopes.ADMIN_READ, scopes.ADMIN)]
Overseer = Annotated[Principal, requires_one(scopes.ADMIN_READ, scopes.ADMIN)]
Admin = Annotated[Principal, requires(scopes.ADMIN)]
Platform = Annotated[Principal, requires(scopes.JOBS_PROGRESS)]
Lessor = Annotated[Principal, requires(scopes.LEASES)]
