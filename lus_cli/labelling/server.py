"""The local web server of `lus label`, and what it refuses.

It listens on 127.0.0.1 only. The first part of every path is a random token, without which there is
nothing. A request with another Host (a name that was made to point here: DNS rebinding) or another
Origin (a page in another tab) is refused. Videos are numbered: no path of a request becomes a path
of a file. The page may load nothing from elsewhere and send nothing elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

from lus_cli.errors import LusError
from lus_cli.labelling.ratings import Rating
from lus_cli.labelling.session import Session
from lus_cli.pages.base import rendered

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as missing:
    raise LusError(
        "lus label needs starlette and uvicorn", "pip install 'lus-cli[label]'"
    ) from missing

LOOPBACK = "127.0.0.1"
MOST_BYTES = 65536  # of the body of a request
HEADERS = {  # the page has a content security policy, which names its script
    "Cache-Control": "no-store",  # pictures of patients stay out of the browser's files
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # an address contains the token
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses requests that do not come from the page, and adds headers to every response."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        refusal = self.refusal(scope)
        app = self.app if refusal is None else refusal
        await app(scope, receive, with_headers)

    def refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is refused; None for one that is not."""
        request = Request(scope)
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return PlainTextResponse("wrong host", 403)
        if origins and origins != [f"http://{hosts[0]}"]:
            return PlainTextResponse("wrong origin", 403)
        if request.method == "POST" and not origins:
            return PlainTextResponse("no origin", 403)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return PlainTextResponse("wrong site", 403)
        token = request.url.path.split("/")[1]
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return PlainTextResponse("not found", 404)
        return None


class Endpoints:
    """What the page asks for."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.page = rendered(
            "label.html",
            "report.css label.css",
            "label.js",
            review=session.review,
            rater=session.rater,
        )

    def position_of(self, value: Any) -> int:
        """A position in the order of the videos. Raises HTTPException if it is none."""
        if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
            value = int(value)
        if type(value) is not int or not 0 <= value < len(self.session.videos):
            raise HTTPException(404)
        return value

    async def show(self, _: Request) -> Response:
        return HTMLResponse(self.page)

    async def state(self, _: Request) -> Response:
        return JSONResponse(self.session.state())

    async def frames(self, request: Request) -> Response:
        position = self.position_of(request.path_params["position"])
        self.session.ahead.expect(self.session.upcoming(position))
        clip = self.session.ahead.get(position)
        try:
            made = await asyncio.wrap_future(clip)
        except (LusError, OSError):
            return PlainTextResponse("this video cannot be decoded", 422)
        return Response(made.packed(), media_type="application/octet-stream")

    async def rate(self, request: Request) -> Response:
        try:
            values = json.loads(await body_of(request))
            rating, position = Rating.of(values), self.position_of(values["position"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HTTPException(400) from error
        try:
            answer = self.session.rate(position, rating)
        except (LusError, OSError) as error:
            return PlainTextResponse(failure(error), 507)
        # The table can be made from the ratings at any time, so the press does not wait for it.
        return JSONResponse(answer, background=BackgroundTask(self.write_table))

    def write_table(self) -> None:
        with contextlib.suppress(LusError):  # a full disk: the end of the session says so
            self.session.write_table()


async def body_of(request: Request) -> bytes:
    """The body of a request. Raises HTTPException if it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413)
    return body


def application(session: Session, token: str, port: int) -> ASGIApp:
    """The ASGI application of a session, behind its guard."""
    endpoints = Endpoints(session)
    routes = [
        Route("/{token}/", endpoints.show),
        Route("/{token}/state", endpoints.state),
        Route("/{token}/frames/{position}", endpoints.frames),
        Route("/{token}/rate", endpoints.rate, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, port)


def failure(error: Exception) -> str:
    """Why a rating could not be stored, without the path of a video."""
    cause = error.__cause__ if isinstance(error, LusError) else error
    return (isinstance(cause, OSError) and cause.strerror) or "it cannot be written to the disk"


def serve(session: Session, port: int, started: Callable[[str], None]) -> None:
    """Serves a session until Ctrl-C or SIGTERM. started: called with the address.

    port: 0 for any free one. Raises LusError if the port is in use.
    """
    config = uvicorn.Config(
        app="",
        host=LOOPBACK,
        port=port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # a port in use is reported in one line, below
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing may state another host than the connection's
        timeout_graceful_shutdown=1,
    )
    try:
        socket = config.bind_socket()
    except SystemExit:  # after uvicorn logged the reason
        raise LusError(
            f"port {port} cannot be used", "choose another --port; 0 selects a free one"
        ) from None
    logging.getLogger("uvicorn.error").setLevel("ERROR")
    with socket:
        socket.listen()  # so that a browser that is faster than the server waits for it
        port = socket.getsockname()[1]
        token = secrets.token_urlsafe(16)
        config.app = application(session, token, port)
        server = uvicorn.Server(config)
        started(f"http://{LOOPBACK}:{port}/{token}/")
        with contextlib.suppress(KeyboardInterrupt):  # raised again after the shutdown
            server.run(sockets=[socket])
