"""What a token will say: chosen among what the account's groups give, never beyond."""

from __future__ import annotations

from dataclasses import dataclass

from gateway import settings
from gateway.identity import scopes
from gateway.identity.requests import (
    InvalidGrantError,
    InvalidScopeError,
    InvalidTargetError,
    TokenRefusedError,
    Wish,
)


class ClientNeededError(TokenRefusedError):
    """The account belongs to several clients, and none was named."""

    def __init__(self, clients: tuple[str, ...]) -> None:
        super().__init__("The account belongs to several clients: name one as `client`.")
        self.clients = clients


@dataclass(frozen=True, slots=True)
class Choice:
    """What a token will say beside whose it is."""

    client: str | None
    scope: frozenset[str]
    audience: str


def choose(config: settings.Settings, grants: scopes.Grants, wish: Wish) -> Choice:
    """Decide what a token says.

    Raises
    ------
    TokenRefusedError
        The wish goes beyond the rights, or leaves open for which client it is.
    """
    audience = wish.audience or config.tokens.audience
    allowed = frozenset(scopes.ALL)
    if audience == config.airflow.audience:
        allowed = scopes.FOR_AIRFLOW
    elif audience != config.tokens.audience:
        raise InvalidTargetError("No tokens are made for this audience.")
    client = wish.client or _only_client(grants)
    held = grants.scopes(client) & allowed
    if not held:
        raise InvalidScopeError("The account has no rights here, or none for this client.")
    scope = held if wish.scope is None else wish.scope
    if not scope or not scope <= held:
        raise InvalidScopeError("The account does not have these scopes.")
    return Choice(client, scope, audience)


def _only_client(grants: scopes.Grants) -> str | None:
    """Return the client a token is for when none is named; the platform's rights come first."""
    if grants.platform or not grants.clients:
        return None
    if len(grants.clients) > 1:
        raise ClientNeededError(tuple(sorted(grants.clients)))
    return next(iter(grants.clients))


def narrowed(held: Choice, wish: Wish, grants: scopes.Grants) -> Choice:
    """Decide what a renewed token says.

    Raises
    ------
    TokenRefusedError
        The wish is wider than what was granted, or nothing is left of that.
    """
    if wish.audience not in {None, held.audience}:
        raise InvalidTargetError("The refresh token is for another audience.")
    if wish.client not in {None, held.client}:
        raise InvalidGrantError("The refresh token is for another client.")
    if wish.scope is not None and not wish.scope <= held.scope:
        raise InvalidScopeError("The refresh token does not carry these scopes.")
    left = (held.scope if wish.scope is None else wish.scope) & grants.scopes(held.client)
    if not left:
        raise InvalidGrantError("The account's rights have ended.")
    return Choice(held.client, left, held.audience)
