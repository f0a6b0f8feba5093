"""Serves watches of one Node as Kubernetes does, out of a file that a test writes: node_api.py PORT FILE."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        seen = None
        while True:
            text = FILE.read_text()
            if text != seen:
                event = {"type": "ADDED" if seen is None else "MODIFIED", "object": json.loads(text)}
                self.wfile.write(json.dumps(event).encode() + b"\n")
                seen = text
            time.sleep(0.05)

    def log_message(self, *words: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
