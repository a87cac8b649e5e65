"""From the gateway's answers to sessions of Airflow's own."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.configuration import conf

from ingest import gateway_api, jwks, login, settings, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.flow import Flow
    from ingest.users import GatewayUser

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignOn:
    """Opens sessions, by the gateway's page or by a script's password.

    Attributes
    ----------
    sign
        Makes the token of a session from whom it is for.
    """

    settings: settings.Settings
    gateway: gateway_api.GatewayApi
    keys: jwks.KeyRing
    sign: Callable[[GatewayUser], str]

    def is_issuer(self, name: str) -> bool:
        """Say whether this is how the gateway names itself."""
        return name == self.settings.issuer

    def gateway_address(self, flow: Flow, redirect_uri: str) -> str:
        """Return where a person signs in.

        Raises
        ------
        gateway_api.GatewayAwayError
            The browser would meet nobody there.
        """
        self.gateway.check()
        return flow.address(self.settings.issuer, self.settings.application_id, redirect_uri)

    def open_by_code(self, code: str, redirect_uri: str, flow: Flow) -> login.Session:
        """Turn the gateway's code into a session.

        Raises
        ------
        gateway_api.LoginError
            The code is not good, its tokens are not, or the gateway is away.
        """
        found = self.gateway.code_tokens(code, redirect_uri, flow.verifier)
        user = self._person(found.access_token)
        try:
            subject = tokens.verify_identity(
                tokens.parse(found.id_token),
                keys=self.keys,
                issuer=self.settings.issuer,
                application=self.settings.application_id,
                nonce=flow.nonce,
            )
        except tokens.TokenRefusedError as error:
            log.warning("The gateway's identity token was refused: %s", error)
            raise gateway_api.WrongCredentialsError from error
        except jwks.KeysUnavailableError as error:
            raise gateway_api.GatewayAwayError from error
        if subject != user.sub:
            raise gateway_api.WrongCredentialsError
        return self._opened(user)

    def open_by_password(self, credentials: login.Credentials) -> login.Session:
        """Turn a name and password into a session.

        Raises
        ------
        gateway_api.LoginError
            They are wrong, give no access to Airflow, or the gateway is away.
        """
        token = self.gateway.person_token(
            credentials.username, credentials.password, credentials.client or None
        )
        return self._opened(self._person(token))

    def _person(self, token: str) -> GatewayUser:
        try:
            user = tokens.verify(tokens.parse(token), keys=self.keys, issuer=self.settings.issuer)
        except (tokens.TokenRefusedError, tokens.TokenExpiredError) as error:
            log.warning("The gateway issued a token that opens no session: %s", error)
            raise gateway_api.AccountNotAllowedError from error
        except jwks.KeysUnavailableError as error:
            raise gateway_api.GatewayAwayError from error
        if not user.session:
            raise gateway_api.AccountNotAllowedError
        return user

    def _opened(self, user: GatewayUser) -> login.Session:
        ends = int(time.time()) + conf.getint("api_auth", "jwt_expiration_time")
        return login.Session(self.sign(user), min(user.expires_at, ends))
