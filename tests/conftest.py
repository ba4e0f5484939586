"""Fixtures of the end-to-end tests: the program, buckets, servers, and the example model and data.

The program is $LORRY_BUILD/lorry (default build/release). Larger samples are looked for in
$LORRY_SHARED or ../shared; a test that needs them skips itself where they are absent.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

# The processes of a test run share the cores. Threads of OpenMP would spin while they wait for one that
# has no core at the moment, and take the cores from it: a test then takes a multiple of its time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the peers; the program has its threads (below)

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLE_MODEL = ROOT / "examples" / "model"
EXAMPLE_DATA = ROOT / "examples" / "data" / "identity.jsonl"
NAMES = {"name": "Lorry", "author": "the lorry project"}

# What a user's shell may hold and a test must not see.
LORRY_VARIABLES = (
    "BUCKET_NAME",
    "DATASET_NAME",
    "MODEL_NAME",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "SKYPILOT_NODE_RANK",
    "SKYPILOT_NUM_NODES",
    "OMP_NUM_THREADS",
)


class Lorry:
    """Runs verbs of the program in an empty directory, so that no `.env` is read."""

    def __init__(self, binary, directory):
        self.binary = str(binary)
        self.directory = directory
        self.env = {k: v for k, v in os.environ.items() if k not in LORRY_VARIABLES}

    def start(self, *args, env=None, **kwargs):
        """The running process, stdout and stderr piped unless said otherwise."""
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(
            [self.binary, *map(str, args)],
            cwd=self.directory,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            text=True,
            **kwargs,
        )

    def __call__(self, *args, code=0, env=None, timeout=300):
        """Runs to the end and checks the exit code (None: any)."""
        process = self.start(*args, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"lorry {' '.join(map(str, args))}: still running after {timeout} s\n{err}")
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        if code is not None:
            assert done.returncode == code, f"lorry {' '.join(map(str, args))}\n{out}\n{err}"
        return done

    def json(self, *args, **kwargs):
        """The result of a verb that was given --json."""
        return json.loads(self(*args, **kwargs).stdout)


class Server:
    """A running `lorry serve`."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def post(self, path, body):
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.loads(response.read())

    def client(self):
        """The real client of OpenAI's API."""
        import openai

        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)

    def answer(self, model, prompt, **sampling):
        """The greedy answer to one question."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
        body |= {"temperature": 0, "max_tokens": 64} | sampling
        return self.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]


# Random, kill, fault and fuzz runs are small in `./dev test` and full in `./dev soak`, and begin with
# LORRY_SEED: the same each time, so that what fails can be run again; another one searches elsewhere.
SOAK = "LORRY_SOAK" in os.environ
SEED = int(os.environ.get("LORRY_SEED", "0"))


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def under_small_parent(command):
    """The command, started by a small process: what is forked from a process and then executes another
    program counts the memory of that process as its own peak, and pytest with the peers loaded has GB."""
    start = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    return [sys.executable, "-c", start, *map(str, command)]


MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code)
"""


def peak_rss(command):
    """MB, exit code and stderr. From a small process, as `under_small_parent` says."""
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, command)], capture_output=True, text=True)
    kilobytes, code = map(int, done.stdout.split())
    return kilobytes / 1024, code, done.stderr


def tree_digest(directory):
    """{relative path: SHA-256} of every file under a directory."""
    directory = pathlib.Path(directory)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="session")
def lorry_binary():
    build = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release"))
    binary = build.resolve() / "lorry"
    if not binary.exists():
        pytest.fail(f"{binary} is not there; run ./dev build")
    return binary


@pytest.fixture(scope="session")
def lorry(lorry_binary, tmp_path_factory):
    """`lorry("train", "--bucket", bucket, ...)` runs the program."""
    return Lorry(lorry_binary, tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def shared():
    """The folder of larger samples, or a skip."""
    directory = pathlib.Path(os.environ.get("LORRY_SHARED", ROOT.parent / "shared"))
    if not (directory / "tokenizers").is_dir():
        pytest.skip(f"no samples in {directory}; set LORRY_SHARED to run this test")
    return directory


@pytest.fixture
def bucket(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def free_port():
    return find_free_port()


@pytest.fixture(scope="session")
def serve(lorry):
    """`with serve("--bucket", b, "--model", m) as server:` waits until it is ready."""

    @contextlib.contextmanager
    def start(*args, timeout=60):
        port = find_free_port()
        process = lorry.start("serve", *args, "--port", port, stderr=subprocess.DEVNULL)
        server = Server(process, port)
        try:
            wait_until_ready(server, timeout)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return start


@contextlib.contextmanager
def example_server(lorry, serve, directory, name, *flags):
    """Serves the example model in float32 as `name`, from a bucket in `directory`."""
    where = ("--bucket", directory / "bucket", "--model", name)
    lorry("import-model", EXAMPLE_MODEL, *where)
    with serve(*where, "--base", "--dtype", "float32", *flags) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    """Of the module's `server`."""
    return server.client()


@pytest.fixture(scope="module")
def tokenizer():
    """The example model's, by transformers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EXAMPLE_MODEL)


def wait_until_ready(server, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.process.poll() is not None:
            pytest.fail(f"lorry serve ended with {server.process.returncode}")
        with contextlib.suppress(OSError):
            server.get("/health")
            return
        time.sleep(0.05)
    pytest.fail(f"lorry serve was not ready after {timeout} s")


def import_example(lorry, bucket):
    """Both imports of examples/ under the names `identity` and `demo`."""
    sets = [word for key, value in NAMES.items() for word in ("--set", f"{key}={value}")]
    lorry("import-dataset", EXAMPLE_DATA, "--bucket", bucket, "--dataset", "identity", *sets)
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")


def on(bucket):
    """The flags that name the example's bucket, data set and model."""
    return ("--bucket", bucket, "--dataset", "identity", "--model", "demo")


@pytest.fixture(scope="session")
def prepared(lorry, tmp_path_factory):
    """A bucket with the example imported and tokenized. Read it, do not write to it."""
    bucket = tmp_path_factory.mktemp("prepared") / "bucket"
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    return bucket


@pytest.fixture(scope="session")
def trained(lorry, tmp_path_factory):
    """A bucket in which the example model has learned its new name. Read it, do not write to it."""
    bucket = tmp_path_factory.mktemp("trained") / "bucket"
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    lorry("train", *on(bucket), "--max-steps", 200, "--learning-rate", "5e-3", timeout=600)
    return bucket
