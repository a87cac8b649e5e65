"""One sign-on: a person signs in at the gateway's page, and applications are told who it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.audit import actions, trail
from gateway.identity import browsers, choosing, codes, scopes, sessions
from gateway.identity.access import Access
from gateway.identity.accounts import Account
from gateway.identity.applications import Application
from gateway.identity.authorization import Asked, AuthorizationError
from gateway.identity.choosing import ClientNeededError
from gateway.identity.model import TokenFamily
from gateway.identity.proving import Prover
from gateway.identity.requests import Login, TokenRefusedError


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person whose browser has signed in, with the groups of this moment."""

    sign_in: str
    account: Account


class SignOn:
    """Signs browsers in and out, and makes codes for those that are in."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._config = access.config
        self._database = access.database
        self._prover = Prover(access)

    def sign_in(self, login: Login, address: str, earlier_cookie: str) -> str:
        """Sign a person in; return what the browser's cookie is to hold.

        It is new each time, and what the browser was signed in as before has ended: a cookie that
        somebody else put there is worth nothing.

        Raises
        ------
        TokenRefusedError
            The name or the password is wrong.
        TooManyAttemptsError
            After too many failures, whether this was one or not.
        DirectoryUnavailableError
            Nobody can be signed in at present.
        """
        account = self._prover.prove(login, address)
        with self._database.begin() as session:
            earlier = browsers.find(session, earlier_cookie)
            if earlier is not None:
                browsers.end(session, earlier.id)
            cookie = browsers.begin(session, account.name, self._config.signon.session_seconds)
            trail.record(
                session,
                actor=account.name,
                action=actions.LOGIN_SUCCEEDED,
                subject=account.name,
                client=None,
                details={"grant": "page", "address": address},
            )
        return cookie

    def visitor(self, cookie: str) -> Visitor | None:
        """Return who is signed in in a browser, None if nobody is.

        Raises
        ------
        DirectoryUnavailableError
            Whether the account still is one is not known.
        """
        with self._database.begin() as session:
            sign_in = browsers.find(session, cookie)
        if sign_in is None:
            return None
        account = self._access.membership.account(sign_in.subject)
        if account is not None and account.kind == "person":
            return Visitor(sign_in.id, account)
        with self._database.begin() as session:
            browsers.end(session, sign_in.id)
        return None

    def grant(self, asked: Asked, visitor: Visitor, address: str) -> str:
        """Make a code by which an application learns who the person is.

        Raises
        ------
        ClientNeededError
            The person has to choose for which client it is.
        AuthorizationError
            The person has no such rights.
        """
        application = asked.target.application
        wish = replace(asked.wish, audience=application.audience)
        try:
            choice = choosing.choose(self._config, self._access.grants(visitor.account), wish)
        except ClientNeededError:
            raise
        except TokenRefusedError as refusal:
            self._prover.record_refusal(visitor.account, refusal.code, address)
            raise AuthorizationError(asked.target, "access_denied", refusal.detail) from None
        scope = scopes.text(choice.scope)
        with self._database.begin() as session:
            return codes.issue(
                session,
                visitor.sign_in,
                asked,
                choice.client,
                scope,
                self._config.signon.code_seconds,
            )

    def sign_out(self, cookie: str) -> None:
        """End what a browser's cookie stands for, and every session that came of it."""
        with self._database.begin() as session:
            sign_in = browsers.find(session, cookie)
            if sign_in is not None:
                browsers.end(session, sign_in.id)

    def end_session(self, application: Application, identity: str) -> None:
        """End a session of an application, and the browser's sign-in that it came of."""
        with self._database.begin() as session:
            family = session.get(TokenFamily, identity)
            if family is None or family.audience != application.audience:
                return
            if family.sign_in is not None:
                browsers.end(session, family.sign_in)
            sessions.revoke(session, identity)
