"""A browser's part of Streamlit's conversation: asks a running server for a page and gives back what it drew."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect


@dataclass
class Visit:
    """What one run of the page's script sent.

    Attributes:
        elements: the kind of each element drawn, such as "markdown" or "plotly_chart".
        errors: messages of uncaught exceptions.
        finished: whether the script came to its end.
    """

    elements: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    finished: bool = False


def visit(port: int, *, query: str = "", timeout_s: float = 30.0) -> Visit:
    """Open the start page, as a browser does, and wait until it is drawn."""
    seen, end = Visit(), time.monotonic() + timeout_s
    address = f"ws://localhost:{port}/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None, proxy=None) as socket:  # type: ignore[list-item]
        hello = BackMsg()
        hello.rerun_script.query_string = query
        socket.send(hello.SerializeToString())
        while not seen.finished and time.monotonic() < end:
            message = ForwardMsg()
            message.ParseFromString(socket.recv(timeout=end - time.monotonic()))
            kind = message.WhichOneof("type")
            if kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                element = message.delta.new_element
                seen.elements.append(element.WhichOneof("type"))
                if element.WhichOneof("type") == "exception":
                    seen.errors.append(element.exception.message)
            seen.finished = kind == "script_finished"
    return seen
