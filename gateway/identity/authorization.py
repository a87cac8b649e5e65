"""Requests to sign a person on to an application (RFC 6749 §4.1.1), and where answers go.

A request whose application or address is not known for certain is answered on a page of ours;
only then may anything, failures too, be sent to the application (RFC 6749 §4.1.2.1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from gateway.errors import GatewayError
from gateway.identity.applications import Application, Applications
from gateway.identity.requests import Wish

OPENID = "openid"
# A SHA-256 in base64url (RFC 7636 §4.2).
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# RFC 7636 §4.1.
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
OPAQUE = re.compile(r"[\x21-\x7e]{1,512}")
PROMPTS = {"", "none", "login"}
UNSUPPORTED = ("request", "request_uri", "registration")


class UnusableRequestError(GatewayError):
    """The address a person came by is not one that an application of ours sends people to."""

    slug = "authorization-refused"
    status = 400
    title = "This sign-in link is not valid"


class AuthorizationError(Exception):
    """A refusal that the application is told of.

    Attributes
    ----------
    code
        RFC 6749 §4.1.2.1's, or OpenID Connect's ``login_required``.
    """

    def __init__(self, target: Target, code: str, description: str) -> None:
        super().__init__(description)
        self.target = target
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True)
class Target:
    """Where an answer goes."""

    application: Application
    redirect_uri: str
    state: str | None

    def address(self, issuer: str, **answer: str) -> str:
        """Return the address that brings an answer to the application.

        It names who answers (RFC 9207), so that no other server's answer passes for ours.
        """
        given = {"state": self.state} if self.state is not None else {}
        query = urlencode({**answer, **given, "iss": issuer})
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{query}"

    @property
    def origin(self) -> str:
        """The origin of the address, for a page's policy."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an application asks for.

    Attributes
    ----------
    challenge
        Of PKCE (RFC 7636), always S256.
    wants_login
        The person has to prove who they are, signed in or not.
    may_ask
        Whether a page may be shown at all.
    """

    target: Target
    challenge: str
    nonce: str | None
    wish: Wish
    is_openid: bool
    wants_login: bool
    may_ask: bool


def read(query: Sequence[tuple[str, str]], applications: Applications) -> Asked:
    """Read a request.

    Raises
    ------
    UnusableRequestError
        Nobody can be told: the application or its address is not certain.
    AuthorizationError
        The application is told what is wrong.
    """
    fields = dict(query)
    counted = Counter(name for name, _ in query)
    target = _target(fields, counted, applications)
    if any(number > 1 for number in counted.values()):
        raise AuthorizationError(target, "invalid_request", "A parameter is there twice.")
    if any(name in fields for name in UNSUPPORTED):
        raise AuthorizationError(target, "invalid_request", "Send the parameters themselves.")
    _check(fields, target)
    scope = frozenset(fields.get("scope", "").split(" ")) - {""}
    return Asked(
        target=target,
        challenge=fields["code_challenge"],
        nonce=fields.get("nonce") or None,
        wish=Wish(scope - {OPENID} or None, fields.get("client") or None, fields.get("audience")),
        is_openid=OPENID in scope,
        wants_login=fields.get("prompt") == "login",
        may_ask=fields.get("prompt") != "none",
    )


def _target(fields: dict[str, str], counted: Counter[str], applications: Applications) -> Target:
    application = applications.named(fields.get("client_id", ""))
    redirect_uri = fields.get("redirect_uri", "")
    is_certain = counted["client_id"] == counted["redirect_uri"] == 1
    if application is None or not is_certain or redirect_uri not in application.redirect_uris:
        raise UnusableRequestError("Go back to the application and sign in from there.")
    state = fields.get("state")
    if counted["state"] > 1 or (state is not None and not OPAQUE.fullmatch(state)):
        raise UnusableRequestError("The link was changed on its way here.")
    return Target(application, redirect_uri, state)


def _check(fields: dict[str, str], target: Target) -> None:
    if fields.get("response_type") != "code":
        raise AuthorizationError(target, "unsupported_response_type", "Ask for a code.")
    if fields.get("response_mode", "query") != "query":
        raise AuthorizationError(target, "invalid_request", "Answers come in the query.")
    is_challenge = CHALLENGE.fullmatch(fields.get("code_challenge", ""))
    if fields.get("code_challenge_method") != "S256" or not is_challenge:
        raise AuthorizationError(target, "invalid_request", "Send a code_challenge by S256.")
    if not OPAQUE.fullmatch(fields.get("nonce") or "-"):
        raise AuthorizationError(target, "invalid_request", "The nonce is not usable.")
    if fields.get("prompt", "") not in PROMPTS:
        raise AuthorizationError(target, "invalid_request", "Prompt is login or none.")
    if fields.get("audience") not in {None, target.application.audience}:
        raise AuthorizationError(target, "invalid_target", "The audience is another one.")
