"""The verb `view`: a store in the browser, at an address of this machine that has a secret in it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from featurestore.api import FeatureStore
from featurestore.errors import MissingDependency, OutputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
GRACE = 1  # seconds at the end for answers that are under way


def view(store: FeatureStore, *, say: Callable[[str], None], port: int = 0, browser: bool = False) -> None:
    """Show a store in the browser of this machine until Ctrl-C, which raises KeyboardInterrupt.

    The store is not changed.

    Args:
        store: that is shown.
        say: receives the address, with its token.
        port: of 127.0.0.1; 0 takes a free one.
        browser: open the address in a browser, where there is a screen.

    Raises:
        MissingDependency: starlette or uvicorn is not installed.
        OutputError: the port can't be used.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise _missing() from error
    token = secrets.token_urlsafe(32)
    with _listen(port) as listening:
        port = listening.getsockname()[1]
        app = make_viewer(store, token=token, port=port)
        address = f"http://{HOST}:{port}/?token={token}"
        say(address)
        if browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # pages log their own errors
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        uvicorn.Server(config).run(sockets=[listening])


def make_viewer(store: FeatureStore, *, token: str, port: int) -> ASGIApp:
    """Return the application of `view`: the pages of a store, and the guard before them.

    Args:
        store: that is shown.
        token: that a browser has to show.
        port: on which it is served.

    Raises:
        MissingDependency: starlette is not installed.
    """
    try:
        from featurestore.apps.viewer.guard import Guard
        from featurestore.apps.viewer.pages import make_pages
    except ImportError as error:
        raise _missing() from error
    return Guard(make_pages(store), token, port)


def _missing() -> MissingDependency:
    return MissingDependency("starlette and uvicorn are not both installed; pip install 'featurestore[view]'")


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:  # Python adds the address to its text
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(
            f"port {port} of {HOST} can't be used: {reason}; name another, or 0 for a free one"
        ) from error


def _has_screen() -> bool:
    """Return whether a browser has a screen; without one, it would be a program for terminals, and take this one."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
