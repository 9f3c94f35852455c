"""The server of the pages: Streamlit's own app with `guard` around it. The one place that knows how Streamlit is started.

`App`, its `middleware` and its `run` are Streamlit's public way to put something in front of an app. What they promise is
tried at every start, before the port is opened: a server that would let a stranger in does not start.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from streamlit.starlette import App

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.guard import Guard, origins_of, prove_guarded
from byrote.dashboard.launch import hold_other_address


def serve(
    script: Path, *, port: int, token: str, once: str = "", origins: Sequence[str], options: dict[str, Any]
) -> None:
    """Answer until the process is stopped.

    Args:
        script: draws the pages.
        port: on this machine.
        token: which opens them.
        once: which opens them one time.
        origins: further addresses under which a browser finds the server.
        options: Streamlit's, see `launch.options`.
    """

    @asynccontextmanager
    async def tried(app: App) -> AsyncIterator[None]:
        try:
            await prove_guarded(app, port=port)
        except ByroteError as error:
            print(f"error: {error.message}\n  help: {error.help}", file=sys.stderr, flush=True)
            raise
        yield

    try:
        held = hold_other_address(port)
    except OSError as error:
        sys.exit(
            f"error: another program listens on port {port} of [::1], which is also localhost ({error.strerror})"
        )
    guard = Middleware(Guard, port=port, token=token, once=once, origins=origins_of(port, origins))
    App(script, middleware=[guard], lifespan=tried).run(config=options)
    if held is not None:
        held.close()
