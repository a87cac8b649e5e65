"""Requests for tokens: what they can ask, how they are read, how they are refused (RFC 6749)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote_plus

from gateway.errors import GatewayError
from gateway.identity.accounts import Kind

# RFC 8693 §2.1, §3. That a session is named by its id is this gateway's own.
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a kind
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a kind
SESSION_TOKEN = "urn:ingestion-gateway:token-type:session"  # noqa: S105 - a kind

NAME_AND_PASSWORD = "Send a name and a password."  # noqa: S105 - a sentence


class TokenRefusedError(GatewayError):
    """A request for a token that is not granted; ``code`` is RFC 6749's (§5.2)."""

    slug = "token-refused"
    status = 400
    title = "The token was not granted"
    code: ClassVar[str] = "invalid_request"


class InvalidGrantError(TokenRefusedError):
    """Wrong name or password, or a refresh token that opens nothing."""

    code = "invalid_grant"


class InvalidScopeError(TokenRefusedError):
    """The account has no such rights, or none for such a client."""

    code = "invalid_scope"


class InvalidTargetError(TokenRefusedError):
    """No tokens are made for that audience (RFC 8707)."""

    code = "invalid_target"


class UnsupportedGrantError(TokenRefusedError):
    """A grant type that is not spoken here."""

    code = "unsupported_grant_type"


class InvalidClientError(TokenRefusedError):
    """Wrong name or password of a service."""

    status = 401
    code = "invalid_client"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Basic realm="gateway"'})


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password; some senders encode them, so there can be two ways to read them."""

    kind: Kind
    readings: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The name as it was sent."""
        return self.readings[0][0]


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of token is asked for; None takes what the account's rights suggest."""

    scope: frozenset[str] | None = None
    client: str | None = None
    audience: str | None = None


def wish(form: dict[str, str]) -> Wish:
    """Read what kind of token is asked for; an empty value counts as none (RFC 6749 §3.2)."""
    scope = form.get("scope") or None
    return Wish(
        scope=None if scope is None else frozenset(scope.split(" ")),
        client=form.get("client") or None,
        audience=form.get("audience") or None,
    )


def person(form: dict[str, str]) -> Login:
    """Read a person's name and password."""
    if "username" not in form or "password" not in form:
        raise TokenRefusedError(NAME_AND_PASSWORD)
    return Login("person", ((form["username"], form["password"]),))


def service(authorization: str | None, form: dict[str, str]) -> Login:
    """Read a service's name and password, from HTTP Basic or from the form."""
    if authorization is None:
        if "client_id" not in form or "client_secret" not in form:
            raise InvalidClientError(NAME_AND_PASSWORD)
        return Login("service", ((form["client_id"], form["client_secret"]),))
    if "client_secret" in form:
        raise TokenRefusedError("Send the password in one way only.")
    return Login("service", _basic(authorization))


def _basic(header: str) -> tuple[tuple[str, str], ...]:
    """Read HTTP Basic credentials.

    RFC 6749 §2.3.1 has them form-encoded first. Many senders do not; so where the two readings
    differ both are tried, as one attempt.
    """
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        text = ""
    name, colon, password = text.partition(":")
    if scheme.lower() != "basic" or not colon or "\0" in text:
        raise InvalidClientError(NAME_AND_PASSWORD)
    decoded = (unquote_plus(name), unquote_plus(password))
    return tuple(dict.fromkeys([(name, password), decoded]))
