"""Applications that people sign on to through the gateway: OAuth's clients (RFC 6749 §2).

Here "client" is a tenant, so what RFC 6749 calls a client is called an application.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Iterable
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from gateway import settings
from gateway.identity import requests
from gateway.identity.requests import InvalidClientError
from gateway.settings import SettingsError

VARIABLE = "GATEWAY_SIGNON_APPLICATIONS"
SECRET_CHARACTERS = 32


def _exact_address(uri: str) -> str:
    """Take an address that an answer may be sent to: whole, and out of strangers' reach."""
    parts = urlsplit(uri)
    # Characters that browsers and servers read in different ways have no place in it.
    is_plain = uri.isascii() and uri.isprintable() and not set(uri) & set(' \\#"<>')
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    if not (is_plain and is_safe and parts.hostname and "@" not in parts.netloc):
        message = "must be a whole https address without fragment (http on loopback only)"
        raise ValueError(message)
    return uri


def is_loopback(host: str | None) -> bool:
    """Say whether a host name stands for this very machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Application(BaseModel):
    """One application.

    Attributes
    ----------
    audience
        Whom its tokens are for.
    redirect_uris
        Where answers may go: compared as text, whole (RFC 9700 §2.1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    client_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}\z")]
    name: Annotated[str, Field(min_length=1, max_length=60)]
    audience: Annotated[str, Field(min_length=1)]
    secret: Annotated[SecretStr, Field(min_length=SECRET_CHARACTERS)]
    redirect_uris: Annotated[
        tuple[Annotated[str, AfterValidator(_exact_address)], ...], Field(min_length=1)
    ]

    def has_secret(self, given: str) -> bool:
        """Say whether this is its secret, in a time that tells nothing."""
        return hmac.compare_digest(given.encode(), self.secret.get_secret_value().encode())


class Applications:
    """All applications that are registered."""

    def __init__(self, registered: Iterable[Application] = ()) -> None:
        self._by_id = {each.client_id: each for each in registered}

    @classmethod
    def load(cls, config: settings.Settings) -> Self:
        """Read them from the settings.

        Raises
        ------
        SettingsError
            One is unusable, or passwords for them would cross the wire unencrypted.
        """
        given = config.signon.applications
        found = [] if given is None else _read(given.get_secret_value())
        ids = [each.client_id for each in found]
        audiences = {config.tokens.audience, config.airflow.audience}
        if len(set(ids)) != len(ids):
            raise SettingsError(f"{VARIABLE}: a client_id is there twice")
        if any(each.audience not in audiences for each in found):
            raise SettingsError(
                f"{VARIABLE}: audience must be one of {', '.join(sorted(audiences))}"
            )
        issuer = urlsplit(config.tokens.issuer)
        if found and issuer.scheme != "https" and not is_loopback(issuer.hostname):
            raise SettingsError(
                "GATEWAY_TOKENS_ISSUER: must be https where people sign in (http on loopback only)"
            )
        return cls(found)

    def named(self, client_id: str) -> Application | None:
        """Return an application by its id."""
        return self._by_id.get(client_id)

    def proven(self, authorization: str | None, form: dict[str, str]) -> Application:
        """Return the application that sends its id and secret, by HTTP Basic or in the form.

        Raises
        ------
        InvalidClientError
            There is no such application, or this is not its secret.
        """
        login = requests.service(authorization, form)
        for client_id, secret in login.readings:
            application = self.named(client_id)
            if application is not None and application.has_secret(secret):
                return application
        raise InvalidClientError("Wrong client_id or client_secret.")


def _read(text: str) -> list[Application]:
    try:
        return TypeAdapter(list[Application]).validate_python(json.loads(text))
    except ValidationError as error:
        lines = [f"{VARIABLE}: {_place(each['loc'])}: {each['msg']}" for each in error.errors()]
        raise SettingsError("\n".join(lines)) from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{VARIABLE}: must be a JSON list of applications") from None


def _place(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location)
