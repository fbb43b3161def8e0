"""A stand-in for the Hub on loopback: the part of its HTTP API that downloads use, and its faults.

Requests and answers are those of huggingface_hub 2.4: ``/api/models/ID/revision/REVISION``,
``/tree`` and ``/resolve``, with commit, ETag, Range, and for large files a redirect to another
host.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".h5", ".onnx", ".msgpack", ".pt")
"""Ends of names of files that the Hub keeps elsewhere and redirects to."""


@dataclass
class Repository:
    """A repository of the stand-in.

    Attributes:
        commits: files by name, of each commit.
        refs: commit of each branch, tag and pull request (``refs/pr/1``).
        is_gated: True if only ``members`` may fetch files.
        is_private: True if only ``members`` see it at all.
        members: tokens with access.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False
    is_private: bool = False
    members: set[str] = field(default_factory=set)

    def commit(self, folder: Path, *refs: str) -> str:
        """Add a folder's files as a commit, let refs (main if none) point to it, and return it."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        content = "".join(name + _sha256(data) for name, data in files.items())
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit] = files
        self.refs |= dict.fromkeys(refs or ["main"], commit)
        return commit


@dataclass
class Hub:
    """A running stand-in.

    Attributes:
        url: address, for ``HF_ENDPOINT``.
        repositories: repositories by id.
        tokens: valid tokens.
        requests: method and path of each request about a repository so far.
        breaks: numbers of bytes after which downloads of a file, by name, break off, in turn.
        status: status that every request is answered with, if any.
        headers: headers of that answer.
        html: statuses of an HTML page in the place of every answer, by method.
    """

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    breaks: dict[str, deque[int]] = field(default_factory=dict)
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    html: frozenset[str] = frozenset()

    def add(self, repo_id: str, folder: Path, **options: Any) -> Repository:
        """Add a repository whose ``main`` has a folder's files."""
        repository = self.repositories[repo_id] = Repository(**options)
        repository.commit(folder)
        return repository

    def fetched(self) -> set[str]:
        """Return the names of the files that were fetched so far."""
        paths = [path for method, path in self.requests if method == "GET"]
        return {path.rpartition("/")[2] for path in paths if "/resolve/" in path or "/cdn/" in path}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a stand-in until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = _Handler.hubs[server.server_port] = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="hub")
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        del _Handler.hubs[server.server_port]


class _RefusalError(Exception):
    """An answer with an error's status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    hubs: dict[int, Hub] = {}  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _handle(self) -> None:
        hub = self.hubs[self.server.server_address[1]]
        path = unquote(urlsplit(self.path).path)
        # The client asks once a day for a list of programs that may be using it.
        if path != "/api/agent-harnesses":
            hub.requests.append((self.command, path))
        if self.command in hub.html:
            page = b"<html><body>Please sign in to the guest network.</body></html>"
            self._send(200, page, {"Content-Type": "text/html"})
        elif hub.status is not None:
            self._send(hub.status, b"", hub.headers)
        else:
            try:
                self._answer(hub, path)
            except _RefusalError as refusal:
                body = json.dumps({"error": str(refusal)}).encode()
                self._send(refusal.status, body, refusal.headers)

    def _answer(self, hub: Hub, path: str) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if match := re.fullmatch(r"/cdn/(\w+)/(\w+)/(.+)/([^/]+)", path):
            assert not token, "a token was sent to another host"
            _, commit, repo_id, name = match.groups()
            self._send_file(hub, hub.repositories[repo_id].commits[commit][name], name, {})
            return
        if token and token not in hub.tokens:
            message = "Invalid credentials in Authorization header"
            raise _RefusalError(401, "", message)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        if match:
            repo_id, kind, revision = match.groups()
            repository = self._repository(hub, repo_id, token)
            commit = _find_commit(repository, revision or "main")
            files = repository.commits[commit]
            body = _tree(files) if kind == "tree" else _info(repo_id, commit, files)
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self._resolve(hub, token, *match.groups())
        else:
            raise _RefusalError(404, "", f"no such page: {path}")

    def _repository(self, hub: Hub, repo_id: str, token: str) -> Repository:
        repository = hub.repositories.get(repo_id)
        if repository is None or (repository.is_private and token not in repository.members):
            if token:
                raise _RefusalError(404, "RepoNotFound", "Repository not found")
            raise _RefusalError(401, "RepoNotFound", "Invalid username or password.")
        return repository

    def _resolve(self, hub: Hub, token: str, repo_id: str, revision: str, name: str) -> None:
        repository = self._repository(hub, repo_id, token)
        if repository.is_gated and token not in repository.members:
            restricted = f"Access to model {repo_id} is restricted"
            if token:
                message = f"{restricted} and you are not in the authorized list."
                raise _RefusalError(403, "GatedRepo", message)
            message = (
                f"{restricted}. You must have access to it and be authenticated. Please log in."
            )
            raise _RefusalError(401, "GatedRepo", message)
        commit = _find_commit(repository, revision)
        if name not in repository.commits[commit]:
            raise _RefusalError(404, "EntryNotFound", "Entry not found")
        data = repository.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_hash(data)}"'}
        if not name.endswith(LARGE):
            self._send_file(hub, data, name, headers)
            return
        port = self.server.server_address[1]
        headers |= {
            "X-Linked-Etag": f'"{_sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            # Another host: the client must not send its token there.
            "Location": f"http://localhost:{port}/cdn/{_sha256(data)}/{commit}/{repo_id}/{name}",
        }
        self._send(302, b"", headers)

    def _send_file(self, hub: Hub, data: bytes, name: str, headers: dict[str, str]) -> None:
        status, start = 200, 0
        headers = headers | {"Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        most = None
        if self.command == "GET" and hub.breaks.get(name):
            most = hub.breaks[name].popleft()
        self._send(status, data[start:], headers, most)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], most: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:most])


def _find_commit(repository: Repository, revision: str) -> str:
    commit = repository.refs.get(revision, revision)
    if commit not in repository.commits:
        raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def _info(repo_id: str, commit: str, files: dict[str, bytes]) -> dict[str, Any]:
    siblings = [{"rfilename": name} for name in files]
    return {"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings}


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    entries = []
    for name, data in files.items():
        entry = {"type": "file", "path": name, "size": len(data), "oid": _git_hash(data)}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return entries


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
