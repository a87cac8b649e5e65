"""Doors of the portal: the sign-on of applications (RFC 6749 §4.1), and signing out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from gateway import logs, web
from gateway.clients import registry
from gateway.errors import GatewayError, InvalidRequestError, NotFoundError, UnavailableError
from gateway.identity import authorization, requests
from gateway.identity.authorization import Asked, AuthorizationError
from gateway.identity.choosing import ClientNeededError
from gateway.identity.requests import TokenRefusedError
from gateway.identity.signon import SignOn, Visitor
from gateway.identity.throttle import TooManyAttemptsError
from gateway.identity.token_doors import address_of
from gateway.portal import pages
from gateway.portal.cookies import Cookies

QUERY_FIELDS = 30
FOR_EVER = "public, max-age=31536000, immutable"

log = logs.get("portal")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A door whose callers look at it: failures are pages, or answers to the application."""

    def get_route_handler(self) -> Handler:
        """Wrap the door."""
        answer = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await answer(request)
            except AuthorizationError as error:
                return _refused(request, error)
            except GatewayError as error:
                return _problem(request, error)
            except (OperationalError, InterfaceError, PoolTimeoutError) as error:
                log.warning("database_unavailable", kind=type(error).__name__)
                return _problem(request, UnavailableError("Try again in a minute."))

        return shown


router = APIRouter(route_class=PageRoute, include_in_schema=False)
Form = Annotated[dict[str, str], Depends(web.form_body)]


# --- the sign-on ------------------------------------------------------------------------------


@router.get("/v1/authorize")
def authorize(request: Request) -> Response:
    """Send a person back to an application with a code, asking who it is first where needed."""
    asked, signon = _asked(request), _signon(request)
    visitor = signon.visitor(_cookies(request).session(request))
    if visitor is not None and not asked.wants_login:
        return _granted(request, asked, visitor)
    if not asked.may_ask:
        raise AuthorizationError(asked.target, "login_required", "Nobody is signed in.")
    return _sign_in_page(request, asked)


@router.post("/v1/authorize")
def sign_in(request: Request, form: Form) -> Response:
    """Take the form: sign the person in, and go on as if they had been."""
    asked, signon, cookies = _asked(request), _signon(request), _cookies(request)
    if not cookies.is_genuine(request, form.get("form_token", "")):
        message = "This page was open for too long, or the form did not come from it. Try again."
        return _sign_in_page(request, asked, status=403, message=message)
    try:
        login = requests.person(form)
        cookie = signon.sign_in(login, address_of(request), cookies.session(request))
    except (TokenRefusedError, TooManyAttemptsError, UnavailableError) as error:
        return _asked_again(request, asked, form, error)
    visitor = signon.visitor(cookie)
    if visitor is None:
        raise UnavailableError("Signing in was interrupted.")
    response = _granted(request, asked, visitor)
    life = request.app.state.settings.signon.session_seconds
    cookies.set_session(response, cookie, life)
    return response


def _asked(request: Request) -> Asked:
    try:
        query = parse_qsl(
            request.url.query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS
        )
    except ValueError:
        query = []
    return authorization.read(query, request.app.state.applications)


def _granted(request: Request, asked: Asked, visitor: Visitor) -> Response:
    try:
        code = _signon(request).grant(asked, visitor, address_of(request))
    except ClientNeededError as choice:
        if not asked.may_ask:
            raise AuthorizationError(
                asked.target, "interaction_required", "The person has to choose a client."
            ) from None
        return _client_page(request, asked, visitor, choice.clients)
    except AuthorizationError as error:
        return _refused(request, error)
    return _back(asked.target.address(_issuer(request), code=code))


def _refused(request: Request, error: AuthorizationError) -> Response:
    log.info("authorization_refused", code=error.code)
    answer = {"error": error.code, "error_description": error.description}
    return _back(error.target.address(_issuer(request), **answer))


def _back(address: str) -> Response:
    # 303: the password must not be sent on, which a 307 would do (RFC 9700 §4.12).
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(address, status_code=303, headers=headers)


def _asked_again(
    request: Request, asked: Asked, form: dict[str, str], error: GatewayError
) -> Response:
    message, status = "The user name or the password is not right.", 403
    headers = {}
    if isinstance(error, TooManyAttemptsError):
        message, status = "Too many attempts. Wait a little before you try again.", error.status
        headers = error.headers
    elif isinstance(error, UnavailableError):
        message, status = "Signing in is not possible at the moment. Try again in a minute.", 503
        headers = {"Retry-After": "30"}
    name = form.get("username", "")[:255]
    page = _sign_in_page(request, asked, status=status, message=message, username=name)
    page.headers.update(headers)
    return page


def _sign_in_page(
    request: Request, asked: Asked, *, status: int = 200, message: str = "", username: str = ""
) -> Response:
    response = HTMLResponse(status_code=status, headers=pages.headers((asked.target.origin,)))
    html = pages.render(
        "sign_in.html",
        application=asked.target.application.name,
        action=f"/v1/authorize?{request.url.query}",
        form_token=_cookies(request).new_form(response, request),
        message=message,
        username=username,
    )
    return _filled(response, html)


def _client_page(
    request: Request, asked: Asked, visitor: Visitor, clients: tuple[str, ...]
) -> Response:
    with request.app.state.sessions.begin() as session:
        titles = {each.name: each.title for each in registry.clients(session)}
    # Whoever has just signed in is not asked for the password again.
    query = [
        pair
        for pair in parse_qsl(request.url.query, keep_blank_values=True)
        if pair[0] not in {"client", "prompt"}
    ]
    html = pages.render(
        "choose.html",
        application=asked.target.application.name,
        person=visitor.account.name,
        query=query,
        clients=[(name, titles.get(name, name)) for name in clients],
    )
    return HTMLResponse(html, headers=pages.headers((asked.target.origin,)))


# --- signing out ------------------------------------------------------------------------------


@router.get("/sign-out")
def ask_to_sign_out(request: Request) -> Response:
    """Ask whether to sign out: a link alone must not do it."""
    visitor = _signon(request).visitor(_cookies(request).session(request))
    if visitor is None:
        return _signed_out(request)
    response = HTMLResponse(headers=pages.headers())
    html = pages.render(
        "sign_out.html",
        person=visitor.account.name,
        form_token=_cookies(request).new_form(response, request),
    )
    return _filled(response, html)


@router.post("/sign-out")
def sign_out(request: Request, form: Form) -> Response:
    """Sign out here and of every application."""
    cookies = _cookies(request)
    if not cookies.is_genuine(request, form.get("form_token", "")):
        raise InvalidRequestError("The page was open for too long. Go back and try again.")
    _signon(request).sign_out(cookies.session(request))
    return _signed_out(request)


def _signed_out(request: Request) -> Response:
    text = "Applications that you had open notice it within a minute."
    html = pages.render("message.html", title="You are signed out", message=text)
    response = HTMLResponse(html, headers=pages.headers())
    _cookies(request).forget_session(response)
    return response


# --- what pages share -------------------------------------------------------------------------


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Serve the style sheet."""
    if f"/static/{name}" != pages.STYLE_PATH:
        raise NotFoundError
    return Response(pages.STYLE, media_type="text/css", headers={"Cache-Control": FOR_EVER})


def _problem(request: Request, error: GatewayError) -> Response:
    """Show a failure as a page; ``web`` decides about its headers."""
    headers = dict(web.problem_response(request, error).headers)
    kept = {name: text for name, text in headers.items() if not name.startswith("content-")}
    html = pages.render("message.html", title=error.title, message=error.detail)
    return HTMLResponse(html, error.status, {**kept, **pages.headers()})


def _filled(response: HTMLResponse, html: str) -> Response:
    response.body = html.encode()
    response.headers["Content-Length"] = str(len(response.body))
    return response


def _signon(request: Request) -> SignOn:
    return SignOn(request.app.state.access)


def _cookies(request: Request) -> Cookies:
    return Cookies(_issuer(request))


def _issuer(request: Request) -> str:
    issuer: str = request.app.state.settings.tokens.issuer
    return issuer
