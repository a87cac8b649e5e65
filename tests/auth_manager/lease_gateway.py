"""A loopback HTTP server that answers as the gateway's doors for leases do."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

CONTRACT = Path(__file__).parents[2] / "airflow/contract/lease.json"
GOLDEN: dict[str, Any] = json.loads(CONTRACT.read_text(encoding="utf-8"))


@dataclass
class LeaseGateway:
    """What it answers next, and what it has been asked."""

    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    sign_ins: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/v1/token":
            self.sign_ins.append(headers["authorization"])
            return 200, {"access_token": f"token-{len(self.sign_ins)}", "expires_in": 900}
        self.tokens.append(headers["authorization"])
        self.asked.append(json.loads(body))
        if self.answers:
            return self.answers.pop(0)
        return 201, GOLDEN[self.asked[-1]["resource"]]

    def __enter__(self) -> Self:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, document = gateway.answer(self.path, self.headers, body)
                text = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Keep the test output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()
