"""A hub on loopback: the part of huggingface.co's interface that huggingface_hub uses to list and read a model.

It counts the bytes it sends, can stop in the middle of a file (and wait there, so that a client can be killed), answer
with the wrong bytes, ignore ranges, or refuse. Large files are redirected to another path, as the real one does.

    >>> with a_hub(tmp_path / "models") as hub: print(hub.url)  # doctest: +SKIP
    http://127.0.0.1:40123
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee00" * 5
_LARGE = (".safetensors", ".pth")
_CHUNK = 16384


@dataclass
class Hub:
    """The server's knobs and its memory.

    Attributes:
        url: Its address.
        root: Folder of models: ``root/Wan-AI/Wan2.1-T2V-1.3B``.
        sent: Bytes sent per file's name.
        ranges: The Range headers seen per file's name.
        tokens: The Authorization headers seen, per kind of request.
        cut: File -> close the connection after these many bytes, once.
        hold: File -> after these many bytes, wait for ``release`` and send nothing more, once.
        damage: Files sent with their first byte flipped.
        lie: File -> size that is announced instead of the true one.
        refuse: Status that every request gets.
        ignore_ranges: Send the whole file whatever is asked for.
    """

    url: str
    root: Path
    sent: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, list[str]] = field(default_factory=dict)
    tokens: dict[str, str | None] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    damage: set[str] = field(default_factory=set)
    lie: dict[str, int] = field(default_factory=dict)
    refuse: int | None = None
    ignore_ranges: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def total_sent(self) -> int:
        return sum(self.sent.values())

    def forget(self) -> None:
        """Count from zero."""
        self.sent.clear()
        self.ranges.clear()


@contextlib.contextmanager
def a_hub(root: Path) -> Iterator[Hub]:
    """Serve the models below ``root`` until the block ends."""
    hub = Hub("", root)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        kind = path.split("/")[1]
        self.hub.tokens[kind] = self.headers.get("Authorization")
        if self.hub.refuse is not None:
            self._error(self.hub.refuse, "GatedRepo" if self.hub.refuse == 403 else None)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/.+)?", path):
            self._model(match[1])
        elif match := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            self._resolve(match[1], match[2])
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._content(match[1], match[2])
        else:
            self._error(404, "RepoNotFound")

    def _error(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _model(self, repository: str) -> None:
        root = self.hub.root / repository
        if not root.is_dir():
            self._error(404, "RepoNotFound")
            return
        siblings = [self._sibling(root, path) for path in sorted(root.rglob("*")) if path.is_file()]
        text = json.dumps({"id": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _sibling(self, root: Path, path: Path) -> dict[str, Any]:
        data, name = path.read_bytes(), path.relative_to(root).as_posix()
        size = self.hub.lie.get(name, len(data))
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        found: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob}
        if path.suffix in _LARGE:
            found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
        return found

    def _resolve(self, repository: str, name: str) -> None:
        if Path(name).suffix in _LARGE:
            self.send_response(302)
            self.send_header("Location", f"{self.hub.url}/cdn/{repository}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._content(repository, name)

    def _content(self, repository: str, name: str) -> None:
        data = (self.hub.root / repository / name).read_bytes()
        if name in self.hub.damage:
            data = bytes([data[0] ^ 1]) + data[1:]
        asked = self.headers.get("Range")
        start = 0
        if asked:
            self.hub.ranges.setdefault(name, []).append(asked)
            start = 0 if self.hub.ignore_ranges else int(asked.removeprefix("bytes=").rstrip("-"))
        partial = bool(asked) and not self.hub.ignore_ranges
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        with contextlib.suppress(OSError):
            self._send(name, data[start:], start)

    def _send(self, name: str, data: bytes, at: int) -> None:
        cut, hold = self.hub.cut, self.hub.hold
        for begin in range(0, len(data), _CHUNK):
            if name in hold and at + begin >= hold[name]:
                del hold[name]
                self.hub.held.set()
                self.hub.release.wait()
                return
            if name in cut and at + begin >= cut[name]:
                del cut[name]
                return
            piece = data[begin : begin + _CHUNK]
            # Counted before it is sent: who has received it finds it counted, however slow this thread is.
            self.hub.sent[name] = self.hub.sent.get(name, 0) + len(piece)
            self.wfile.write(piece)
            self.wfile.flush()
