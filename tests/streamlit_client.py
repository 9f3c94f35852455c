"""A browser's part of Streamlit's conversation: asks a running server for a page and gives back what it drew."""

from __future__ import annotations

import http.client
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest
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


def key_of(address: str) -> str:
    """The cookie that a printed address is exchanged for, as a browser sends it."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        assert answer.status == 303, answer.status
        return answer.headers["Set-Cookie"].partition(";")[0]
    finally:
        connection.close()


def visit(address: str, *, query: str = "", timeout_s: float = 30.0) -> Visit:
    """Open a printed address, as a browser does, and wait until the start page is drawn."""
    seen, end = Visit(), time.monotonic() + timeout_s
    place = urlsplit(address).netloc
    with connect(
        f"ws://{place}/_stcore/stream", subprotocols=["streamlit"], origin=f"http://{place}",  # type: ignore[list-item, arg-type]
        additional_headers={"Cookie": key_of(address)}, max_size=None, proxy=None,
    ) as socket:  # fmt: skip
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


def addresses_of(port: int) -> set[str]:
    """Local addresses somebody listens on at a port, from the kernel's own table."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            host, _, number = local.rpartition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(host)
    return found


def heading(at: AppTest) -> str:
    """The title of a page tried without a browser, as a person reads it: without escapes, chips as the names on them."""
    return re.sub(r":\w+-badge\[([^]]*)\]", r"\1", at.title[0].value.replace("\\", ""))
