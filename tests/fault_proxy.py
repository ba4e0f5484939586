"""A proxy that breaks things: it stands between the program and an HTTP server (S3, the Hub) and
answers some requests with an error, cuts bodies short, lies about lengths, stalls or resets.

Requests are passed on byte for byte, so signatures stay valid. Which request meets which fault is
drawn from a seed and the number of the request; `counts` tells how often each kind was injected.
"""

import collections
import contextlib
import random
import socket
import socketserver
import struct
import threading

KINDS = ("500", "503", "429", "reset", "truncate", "length", "stall")
BODY = b"<Error><Code>%s</Code><Message>injected</Message></Error>"
RESPONSES = {
    "500": (b"500 Internal Server Error", b"", BODY % b"InternalError"),
    "503": (b"503 Slow Down", b"", BODY % b"SlowDown"),
    "429": (b"429 Too Many Requests", b"Retry-After: 0\r\n", BODY % b"TooManyRequests"),
}
PIECE = 1 << 16


class FaultProxy:
    """`rates` is {kind: probability}; `matches(method, path)` limits the faults to some requests.

    With `limit`, no kind is injected more often than that. `always` answers every request with one
    kind of fault. `rates` may be changed while the proxy runs.
    """

    def __init__(self, upstream, rates=None, seed=1, matches=None, limit=None, stall_seconds=30):
        self.upstream = upstream  # (host, port)
        self.rates = dict(rates or {})
        self.matches = matches or (lambda method, path: True)
        self.limit = limit
        self.stall_seconds = stall_seconds
        self.counts = collections.Counter()
        self.requests = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def draw(self, method, path):
        """The fault that this request meets, or None."""
        with self._lock:
            self.requests += 1
            if not self.matches(method, path):
                return None
            point = self._chance.random()
            for kind, rate in self.rates.items():
                point -= rate
                if point < 0:
                    if self.limit is not None and self.counts[kind] >= self.limit:
                        return None
                    return kind
        return None

    def injected(self, kind):
        with self._lock:
            self.counts[kind] += 1

    def wait(self, seconds):
        self._stopped.wait(seconds)


@contextlib.contextmanager
def fault_proxy(*args, **kwargs):
    proxy = FaultProxy(*args, **kwargs)
    try:
        yield proxy
    finally:
        proxy.stop()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


class _Handler(socketserver.BaseRequestHandler):
    """One request a connection."""

    def handle(self):
        with contextlib.suppress(OSError):
            self.exchange()

    def exchange(self):
        proxy = self.server.proxy
        head, rest = read_head(self.request)
        if head is None:
            return
        method, path = head.split(b" ", 2)[:2]
        fault = proxy.draw(method.decode(), path.decode("latin-1"))
        wanted = content_length(head) - len(rest)
        if b"expect: 100-continue" in head.lower():
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault in RESPONSES:
            discard(self.request, wanted)
            self.refuse(fault)
            return
        with socket.create_connection(proxy.upstream, timeout=60) as upstream:
            upstream.sendall(close_connection(head) + rest)
            if fault == "reset" and wanted > 2 * PIECE:  # in the middle of an upload
                relay(self.request, upstream, wanted // 2)
                proxy.injected(fault)
                reset(self.request)
                return
            relay(self.request, upstream, wanted)
            self.answer(upstream, method, path, fault)

    def refuse(self, fault):
        status, headers, body = RESPONSES[fault]
        self.server.proxy.injected(fault)
        self.request.sendall(
            b"HTTP/1.1 %s\r\n%sContent-Type: application/xml\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status, headers, len(body), body)
        )

    def answer(self, upstream, method, path, fault):
        proxy = self.server.proxy
        head, rest = read_head(upstream)
        while head is not None and head.startswith(b"HTTP/1.1 100"):
            more, rest = read_head(upstream, rest)
            head = more
        if head is None:
            return
        size = content_length(head, none=-1)
        bodiless = method == b"HEAD" or size == 0
        if fault == "length":
            # Of an object, not of a listing: that one has no length to compare with.
            if bodiless or size < 2 or b"?" in path or not head.startswith(b"HTTP/1.1 2"):
                fault = None
            else:
                head = head.replace(b"Content-Length: %d" % size, b"Content-Length: %d" % (size - 1))
                size -= 1
                proxy.injected(fault)
                fault = "done"
        if fault in ("reset", "truncate", "stall"):
            proxy.injected(fault)
            if not bodiless and size > 0:
                self.request.sendall(close_connection(head))
                half = size // 2
                self.request.sendall(rest[:half])
                relay(upstream, self.request, half - len(rest[:half]))
            if fault == "stall":
                proxy.wait(proxy.stall_seconds)
            if fault != "truncate":
                reset(self.request)
            return
        self.request.sendall(close_connection(head))
        if bodiless:
            return
        self.request.sendall(rest if size < 0 else rest[:size])
        relay(upstream, self.request, size - len(rest) if size >= 0 else None)


def read_head(sock, data=b""):
    """(head with its blank line, what was read beyond it); (None, b"") if the peer closed."""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(PIECE)
        if not piece:
            return None, b""
        data += piece
    end = data.index(b"\r\n\r\n") + 4
    return data[:end], data[end:]


def content_length(head, none=0):
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":", 1)[1])
    return none


def close_connection(head):
    lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n"


def relay(source, target, size):
    """Passes on `size` bytes; None: until the end."""
    while size is None or size > 0:
        piece = source.recv(PIECE if size is None else min(PIECE, size))
        if not piece:
            return
        target.sendall(piece)
        if size is not None:
            size -= len(piece)


def discard(sock, size):
    while size > 0:
        piece = sock.recv(min(PIECE, size))
        if not piece:
            return
        size -= len(piece)


def reset(sock):
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
