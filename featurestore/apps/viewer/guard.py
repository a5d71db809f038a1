"""The guard before the pages: they answer one person on this machine, under one name, and by GET.

The one thing that is sent to them is a picture to search for.

A page of another site can make this person's browser ask the viewer, and by DNS rebinding even under that site's own
name. So the name has to be that of this machine, and the cookie is never sent on behalf of another site.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
UPLOAD = "/search"  # takes a picture, by POST of the viewer's own page
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
# The next page is asked for by this one: after a redirect, a browser that followed a link from elsewhere would withhold
# a cookie of SameSite=Strict.
WELCOME = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/"><title>featurestore</title></head>
<body><p><a href="/">Go on to the store</a></p></body>
</html>
"""


class Guard:
    """Hands on the requests of a browser that has shown the token, and refuses all others."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        """Guard an application.

        Args:
            app: that answers.
            token: that the first request has in its address. Later ones have it in a cookie.
            port: on which the viewer listens.
        """
        self._app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.cookie = f"featurestore-view-{port}"  # cookies don't know ports: two viewers have two

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            answer = self._refusal(Request(scope)) or self._app
            await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return what is answered instead of a page; None for a request that gets its page."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host not in self._hosts:
            return _line(f"the viewer answers to {' and '.join(sorted(self._hosts))} alone", 400)
        if origin is not None and origin != f"http://{host}":
            return _line("the viewer answers no other site", 403)
        if request.method == "POST" and request.url.path == UPLOAD:
            if origin is None:
                return _line("a picture is taken from the viewer's own page alone", 403)
        elif request.method not in METHODS:
            return _line("the viewer changes nothing, and answers to GET alone", 405, Allow=", ".join(METHODS))
        if "token" in request.query_params:
            return self._welcome(request.query_params["token"])
        if self._is_token(request.cookies.get(self.cookie, "")):
            return None
        return _line("this browser has not shown the token; open the address that featurestore view has printed", 403)

    def _welcome(self, token: str) -> Response:
        if not self._is_token(token):
            return _line("the token is another one; open the address that featurestore view has printed", 403)
        answer = HTMLResponse(WELCOME, headers={"Content-Security-Policy": "default-src 'none'"})
        answer.set_cookie(self.cookie, self._token, httponly=True, samesite="strict")
        return answer

    def _is_token(self, given: str) -> bool:
        """Return whether it is the token, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(given.encode(), self._token.encode())


def _line(text: str, status: int, **headers: str) -> Response:
    return PlainTextResponse(f"error: {text}\n", status, headers)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    names = {name for name, _ in message["headers"]}
    kept = () if b"cache-control" in names else ((b"cache-control", b"no-store"),)
    message["headers"] = [*message["headers"], *HEADERS, *kept]
