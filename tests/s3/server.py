"""moto's S3 server on 127.0.0.1, with faults between it and its callers.

`python server.py [PORT]` prints its port as it is ready, and ends when its standard input ends: with the test that
started it. Without PORT any free one is taken. It knows one access key, `tester`, and looks at no signature.

    PUT /__faults__/BUCKET?rate=0.2&seed=1&flip=0   makes the bucket where it is missing, and sets its faults
    PUT /__faults__/BUCKET?deaf=1                   as a server that does not know If-None-Match: it writes anyway
    GET /__faults__/BUCKET                          how many requests there were, and how many of each fault, as JSON

At `rate` a request meets one of the faults that fit it, each as likely as the others but for slow-downs. At `flip` a
data file is answered with one bit changed. What request number n of a bucket meets is determined by the seed. Which
request has that number is not: several come at once.
"""

import io
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

KEY, CONTROL = "tester", "/__faults__/"
SLOW, RETRY_AFTER = 0.2, 1  # seconds
SLOW_DOWNS = 0.05  # how likely one is, where another fault is 1
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST at once
# Answers in place of the request, which is not performed.
REFUSALS = {
    "slow_down": (503, "SlowDown", {}),
    "slow_down_for": (503, "SlowDown", {"Retry-After": str(RETRY_AFTER)}),
    "internal": (500, "InternalError", {}),
    "conflict": (409, "ConditionalRequestConflict", {}),
}
# The connection ends without an answer: before the request is performed or after it, in order or by a reset.
LOSSES = ("unheard_closed", "unheard_reset", "lost_closed", "lost_reset")


def says(status: int, code: str, headers: dict[str, str]) -> Response:
    """An error in S3's words."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Response(body, status, headers, mimetype="application/xml")


def drawn(draw: random.Random, environ: dict) -> str:
    """A fault that fits a request."""
    fitting = dict.fromkeys([*REFUSALS, *LOSSES, "slow", "cut"], 1.0)
    # each of them halves the pace of a whole process
    fitting["slow_down"] = fitting["slow_down_for"] = SLOW_DOWNS
    if environ.get("HTTP_IF_NONE_MATCH") != "*":
        del fitting["conflict"]
    if environ["REQUEST_METHOD"] != "GET":
        del fitting["cut"]
    [fault] = draw.choices(list(fitting), list(fitting.values()))
    return fault


@dataclass
class Bucket:
    """The faults of a bucket, and what they came to."""

    rate: float = 0.0
    flip: float = 0.0
    deaf: bool = False
    seed: int = 0
    requests: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def draws(bucket: Bucket, environ: dict) -> tuple[str, bool, random.Random]:
    """The fault of the next request if there is one, whether its answer is flipped, and what else is drawn for it."""
    draw = random.Random(f"{bucket.seed} {bucket.requests}")
    bucket.requests += 1
    fault = drawn(draw, environ) if draw.random() < bucket.rate else ""
    return fault, draw.random() < bucket.flip, draw


def is_data(path: str) -> bool:
    """Whether an object is a data file of a table, and none of its log."""
    return path.endswith(".parquet") and "_delta_log" not in path


def end(connection: socket.socket, reset: bool) -> None:
    """Closes a connection. The error is the one that werkzeug takes for a caller who has left: it says nothing."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        # another owner closes it: its readers would keep it open, and werkzeug would say FIN first
        socket.socket(fileno=connection.detach()).close()
    else:
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class Faulty:
    """The application."""

    def __init__(self) -> None:
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.buckets: dict[str, Bucket] = {}
        # moto looks for an object and puts it in two steps; two callers must not both create one
        self.lock = threading.Lock()

    def __call__(self, environ: dict, start_response):
        """One request."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        path = environ["PATH_INFO"]
        answer = self.control(path, environ) if path.startswith(CONTROL) else self.request(path, environ)
        return answer(environ, start_response)

    def control(self, path: str, environ: dict) -> Response:
        """Sets the faults of a bucket, or says what they came to."""
        name = path.removeprefix(CONTROL)
        if environ["REQUEST_METHOD"] == "PUT":
            asked = dict(parse_qsl(environ["QUERY_STRING"]))
            authorization = {"Authorization": environ.get("HTTP_AUTHORIZATION", "")}
            made = self.perform(EnvironBuilder(f"/{name}", method="PUT", headers=authorization).get_environ())
            if made.status_code not in (200, 409):  # 409: it is there
                return made
            bucket = self.buckets.setdefault(name, Bucket())
            bucket.rate, bucket.flip = float(asked.get("rate", 0)), float(asked.get("flip", 0))
            bucket.deaf = asked.get("deaf") == "1"
            bucket.seed = int(asked.get("seed", bucket.seed))
        bucket = self.buckets[name]
        return Response(json.dumps({"requests": bucket.requests, **bucket.counts}), mimetype="application/json")

    def request(self, path: str, environ: dict) -> Response:
        """A request of S3, with the fault that is drawn for it."""
        if f"Credential={KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return says(403, "InvalidAccessKeyId", {})
        bucket = self.buckets.get(path.split("/")[1], Bucket())
        if bucket.deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self.lock:
            fault, flip, draw = draws(bucket, environ)
        if fault in REFUSALS:
            self.happened(bucket, fault)
            return says(*REFUSALS[fault])
        if fault in LOSSES:
            self.happened(bucket, fault)
            if fault.startswith("lost"):
                self.perform(environ)
            end(environ["werkzeug.socket"], fault.endswith("reset"))
        if fault == "slow":
            self.happened(bucket, fault)
            time.sleep(SLOW)
        answer = self.perform(environ)
        body = answer.get_data()
        if fault == "cut" and body:
            self.happened(bucket, fault)
            # werkzeug closes the connection after each answer, so this one ends before its Content-Length
            answer.response = [body[: draw.randrange(len(body))]]
        elif flip and is_data(path) and body and answer.status_code in (200, 206):
            self.happened(bucket, "flip")
            at = draw.randrange(len(body))
            answer.response = [body[:at] + bytes([body[at] ^ 1 << draw.randrange(8)]) + body[at + 1 :]]
        return answer

    def happened(self, bucket: Bucket, fault: str) -> None:
        """Counts a fault."""
        with self.lock:
            bucket.counts[fault] += 1

    def perform(self, environ: dict) -> Response:
        """The answer of moto."""
        with self.lock:
            answer = Response.from_app(self.inner, environ, buffered=True)
        if environ["REQUEST_METHOD"] != "HEAD":
            answer.headers["Content-Length"] = str(len(answer.get_data()))
        return answer


class Handler(MotoRequestHandler):
    """Says nothing of each request, and expects no further one on a connection that was ended."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""

    def connection_dropped(self, error: BaseException, environ: dict | None = None) -> None:
        """The last of this connection."""
        self.close_connection = True


def main() -> None:
    """Serves until standard input ends."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = make_server("127.0.0.1", port, Faulty(), threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
