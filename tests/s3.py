"""A real S3 server for tests: versitygw, started and stopped here. `./dev test` installs it; where
it is missing the tests that need it skip and say so."""

import contextlib
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

ACCESS, SECRET = "test", "testtest"
USER = {
    "AWS_ACCESS_KEY_ID": ACCESS,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def find_server():
    """The program's path, or None."""
    places = [os.environ.get("LORRY_VERSITYGW"), shutil.which("versitygw")]
    places.append(str(pathlib.Path.home() / ".cache" / "lorry" / "bin" / "versitygw"))
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


class S3:
    """A running server over a directory: a bucket is a folder in it, an object a file."""

    options = ()  # of versitygw, e.g. --readonly

    def __init__(self, directory):
        binary = find_server()
        if binary is None:
            pytest.skip("no versitygw (LORRY_VERSITYGW, PATH or ~/.cache/lorry/bin)")
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [binary, "--port", f"127.0.0.1:{self.port}", "--access", ACCESS]
        command += ["--secret", SECRET, "-q", *self.options, "posix", str(self.directory)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self.address = ("127.0.0.1", self.port)
        self.wait()

    def wait(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(self.address, 1):
                return
            time.sleep(0.02)
        pytest.fail("versitygw did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def env(self, url=None):
        """What the program needs to reach the server, or a proxy before it."""
        return {**USER, "AWS_ENDPOINT_URL_S3": url or self.url}

    def make_bucket(self, name):
        (self.directory / name).mkdir(exist_ok=True)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


class NamedObjects:
    """A server of objects that are read only, whose keys are names and no paths: {key: bytes}."""

    def __init__(self, objects):
        self.objects = objects
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                _, _, key = urllib.parse.unquote(url.path)[1:].partition("/")
                if not key:
                    query = dict(urllib.parse.parse_qsl(url.query))
                    return self.answer(200, outer.listing(query.get("prefix", "")))
                if key not in outer.objects:
                    return self.answer(404, b"")
                self.answer(200, outer.objects[key])

            def answer(self, status, body):
                asked = self.headers.get("Range")
                head = [("ETag", '"1"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")]
                if status == 200 and asked:
                    first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
                    head.append(("Content-Range", f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"))
                    status, body = 206, body[first : last + 1]
                self.send_response(status)
                for name, value in [*head, ("Content-Length", str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def listing(self, prefix):
        entries = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(body)}</Size><ETag>1</ETag>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, body in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>".encode()

    def env(self):
        return {**USER, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.server.server_port}"}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
