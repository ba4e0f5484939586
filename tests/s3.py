"""A real S3 server for tests: versitygw, started and stopped here. `./dev test` installs it; where
it is missing the tests that need it skip and say so."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time

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
