"""Receives webhooks of presignd and verifies them with the Standard Webhooks library.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_… python3 receiver.py 8000

Prints one line for each event that it sees for the first time.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])

# Delivery is at least once: the same webhook-id may come again. A real receiver keeps the ids in its database, in the
# transaction that does what the event asks for.
seen: set[str] = set()
lock = Lock()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        # The bytes as they came: parsed and written again, they would have another signature.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            webhook.verify(body, dict(self.headers), json_parse=False)
        except WebhookVerificationError:
            self.answer(400)
            return
        event_id = self.headers["webhook-id"]
        with lock:
            is_first = event_id not in seen
            seen.add(event_id)
        if is_first:
            event = json.loads(body)
            upload_id = event["data"].get("upload_id") or event["data"]["id"]
            print(event["type"], upload_id, event_id, flush=True)
        # Only now, because a 2xx is the end of it. Slow work belongs into a queue: presignd waits 15 seconds.
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print("listening on", server.server_port, flush=True)
    server.serve_forever()
