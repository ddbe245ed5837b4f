"""Real servers on free ports of this machine: moto's S3 in a process of its own, nginx, and a small HTTP server."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "do-not-print-me", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 server; gives the endpoint."""
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        running = (re.search(r"Running on (http://\S+)", line) for line in server.stderr)
        endpoint = next(found[1] for found in running if found)
        drain = threading.Thread(target=server.stderr.read)  # a full pipe would stop the server
        drain.start()
        yield endpoint
    finally:
        server.kill()
        drain.join()
        server.stderr.close()
        server.wait()


@contextmanager
def s3_bucket(name: str) -> Iterator[Any]:
    """A bucket on a server of its own, in the environment of someone who may use it; gives a boto3 client."""
    import boto3

    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for variable, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}).items():
            patch.setenv(variable, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        yield client
        client.close()


class Nginx:
    """nginx over one folder; counts what it sent in its access log."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._log, self._config = folder / "access.log", folder / "nginx.conf"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self._config.write_text(
            f"pid {folder}/pid; error_log {folder}/error.log; user root; worker_processes 1; events {{}}\n"
            f"http {{ log_format bytes '$status $body_bytes_sent $uri'; access_log {self._log} bytes; {temporary}\n"
            f"server {{ listen 127.0.0.1:{self.port}; root {root}; }} }}\n"
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Nginx":
        assert NGINX is not None
        subprocess.run([NGINX, "-c", self._config], check=True, capture_output=True)  # returns when it listens
        return self

    def __exit__(self, *_: object) -> None:
        assert NGINX is not None
        subprocess.run([NGINX, "-c", self._config, "-s", "stop"], check=True, capture_output=True)

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(int(line.split()[1]) for line in self._log.read_text().splitlines())

    def requests(self) -> list[str]:
        return self._log.read_text().splitlines()


requires_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class FileServer(ThreadingHTTPServer):
    """Files of one folder; ranges can be turned off, and the next requests can be made to fail."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, *, ranges: bool = True, hub: str = "") -> None:
        """With `hub`, the name of a data set, it answers like Hugging Face's hub about that one."""
        super().__init__(("127.0.0.1", 0), _HubHandler if hub else _Handler)
        self.hub = hub
        self.root, self.ranges = root, ranges
        self.failures: list[int] = []
        """Status of the next answers; 0 closes the connection without one."""
        self.sent = 0
        self.paths: list[str] = []
        self.counting = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "FileServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FileServer

    def do_GET(self) -> None:
        with self.server.counting:
            failure = self.server.failures.pop(0) if self.server.failures else None
            self.server.paths.append(self.path)
        file = self.server.root / self.path.lstrip("/")
        if failure == 0:
            self.close_connection = True
        elif failure or not file.is_file():
            self._answer(failure or 404, b"")
        else:
            self._file(file.read_bytes())

    do_HEAD = do_GET

    def _file(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or not self.server.ranges:
            self._answer(200, data)
        elif int(asked[1]) >= len(data):
            self._answer(416, b"")
        else:
            self._answer(206, data[int(asked[1]) : int(asked[2]) + 1])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            with self.server.counting:  # before the client can have it
                self.server.sent += len(body)
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _HubHandler(_Handler):
    """As much of the hub as its client asks for when it reads: the data set, its folders, its files."""

    def do_GET(self) -> None:
        path, root = unquote(urlsplit(self.path).path), self.server.root
        about, folders = f"/api/datasets/{self.server.hub}", f"/api/datasets/{self.server.hub}/tree/main/"
        files = f"/datasets/{self.server.hub}/resolve/main/"
        if path == about:
            self._json({"id": self.server.hub, "sha": "0" * 40, "private": False, "tags": [], "siblings": []})
        elif path.startswith(folders) and (root / path.removeprefix(folders)).is_dir():
            self._json([self._entry(file) for file in (root / path.removeprefix(folders)).iterdir()])
        elif path.startswith(files):
            self.path = "/" + path.removeprefix(files)
            super().do_GET()
        else:
            self._answer(404, b"")

    def _entry(self, file: Path) -> dict[str, object]:
        kind = "directory" if file.is_dir() else "file"
        size = file.stat().st_size if file.is_file() else 0
        return {"type": kind, "path": file.relative_to(self.server.root).as_posix(), "size": size, "oid": "0" * 40}

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode())
