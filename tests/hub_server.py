"""A stand-in for the hub on this machine: branches, file lists and files of one repository, over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def commit_of(revision: str) -> str:
    """The 40 digits the stand-in gives a branch."""
    return hashlib.sha1(revision.encode()).hexdigest()


class HubServer:
    """Serves folders as the revisions of one repository.

    Args:
        repo: ``org/name``.
        revisions: branch -> the folder of its files.
        tags: those of them that are tags.

    Attributes:
        asked: method and path of every request, in order.
        url: where it listens.
    """

    def __init__(self, repo: str, revisions: Mapping[str, Path], *, tags: tuple[str, ...] = ()) -> None:
        self.repo, self.revisions, self.tags = repo, dict(revisions), tags
        self.asked: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def files_sent(self) -> list[str]:
        """``revision/file`` of every download, in order; revisions by branch name."""
        names = {commit_of(r): r for r in self.revisions}
        sent = [
            line.split("/resolve/")[1]
            for line in self.asked
            if line.startswith("GET") and "/resolve/" in line
        ]
        return [f"{names.get(s.split('/')[0], s.split('/')[0])}/{s.split('/', 1)[1]}" for s in sent]

    def folder(self, revision: str) -> Path | None:
        """The folder of a branch or commit."""
        by_commit = {commit_of(r): f for r, f in self.revisions.items()}
        return self.revisions.get(revision) or by_commit.get(revision)


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            server.asked.append(f"{self.command} {path}")
            api = f"/api/models/{server.repo}/"
            if path == f"{api}refs":
                return self.send_json(_refs(server))
            for kind in ("revision", "tree"):
                if path.startswith(f"{api}{kind}/"):
                    revision = path.removeprefix(f"{api}{kind}/")
                    folder = server.folder(revision)
                    if folder is None:
                        return self.refuse("RevisionNotFound")
                    about = {"id": server.repo, "sha": commit_of(_name(server, revision)), "siblings": []}
                    return self.send_json(about if kind == "revision" else _tree(folder))
            if path.startswith(f"/{server.repo}/resolve/"):
                revision, _, name = path.removeprefix(f"/{server.repo}/resolve/").partition("/")
                folder = server.folder(revision)
                if folder is None or not (folder / name).is_file():
                    return self.refuse("EntryNotFound")
                return self.send_file(folder / name, commit_of(_name(server, revision)), body=body)
            return self.refuse("RepoNotFound")

        def send_json(self, value: object) -> None:
            self.send_bytes(json.dumps(value).encode(), {"Content-Type": "application/json"}, body=True)

        def send_file(self, file: Path, commit: str, *, body: bool) -> None:
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
            self.send_bytes(data, headers, body=body)

        def send_bytes(self, data: bytes, headers: Mapping[str, str], *, body: bool) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _name(server: HubServer, revision: str) -> str:
    return next(r for r in server.revisions if revision in (r, commit_of(r)))


def _refs(server: HubServer) -> dict[str, object]:
    def ref(name: str, kind: str) -> dict[str, str]:
        return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_of(name)}

    return {
        "branches": [ref(name, "heads") for name in server.revisions if name not in server.tags],
        "tags": [ref(name, "tags") for name in server.tags],
        "converts": [],
    }


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": f.name,
            "size": f.stat().st_size,
            "oid": hashlib.sha1(f.read_bytes()).hexdigest(),
        }
        for f in sorted(folder.iterdir())
        if f.is_file()
    ] + [{"type": "directory", "path": f.name, "oid": "0" * 40} for f in folder.iterdir() if f.is_dir()]
