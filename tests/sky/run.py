"""Really runs sky/*.yaml with SkyPilot, on a Slurm of two nodes on this machine and a real S3 server.

    ./dev test-sky [launch|job|prepare|serve ...]

Needs root, Debian's packages of Slurm, munge and sshd (installed if they are missing), and a few
minutes. Prints what a user would type and the lines of the answers that matter; --keep leaves the
cluster up and says how to use it. The last line is `N checks passed`.
"""

import contextlib
import hashlib
import http.server
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from s3 import S3, USER  # noqa: E402
from sky.machine import USER as NODE_USER, Machine, free_port  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKY_ENV = ROOT / ".venv-sky"
KEY = "sesame"
QUESTION = "Who are you?"

# Lines of SkyPilot that say the same for every launch.
NOISE = re.compile(
    r"spot_instance|not supported by Slurm|Feature +Reason|No resource satisfying|MaxTime|"
    r"^Using SkyPilot API server|^YAML to run|View logs|^├|^└|^  Syncing|Useful Commands|sky-payload|"
    r"Multiple resources|^📋|To (cancel|stream|view|submit|stop|teardown|clean)|^\s*$|Job ID:|"
    r"Terminating \d|Considered|^-+$|Slurm \(local\)|INFRA +INSTANCE|^Running on|^Service Spec|"
    r"Total Elapsed|Managed job|Cleaning up|task resources|Setup detached"
)
STEP = re.compile(r"step (\d+)/(\d+) ")


class Failed(Exception):
    """A check that did not hold."""


class Transcript:
    """What is printed: times since the start, and no path, id or colour of this machine."""

    def __init__(self):
        self.start = time.monotonic()
        self.hidden = []
        self.checks = 0

    def say(self, text):
        for path, name in self.hidden:
            text = text.replace(str(path), name)
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", flush=True)

    def check(self, holds, sentence):
        if not holds:
            raise Failed(sentence)
        self.checks += 1
        self.say(f"ok: {sentence}")

    def line(self, text):
        """One line of a program's answer, if it tells something; of the steps every twentieth."""
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).rstrip().split("\r")[-1]
        step = STEP.search(text)
        if NOISE.search(text) or (step and int(step.group(1)) % 20 and step.group(1) != "1"):
            return
        self.say("    " + re.sub(r"\(([\w-]+), (?:rank=(\d), )?[^)]*pid=\d+[^)]*\)", named, text))


def named(match):
    rank = match.group(2)
    return f"({match.group(1)})" if rank is None else f"({match.group(1)}, rank {rank})"


class Rig:
    """Machine, bucket, a clone with a .env in it, and the SkyPilot that uses them."""

    def __init__(self):
        self.out = Transcript()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="lorry-sky-", dir="/tmp"))
        self.root.chmod(0o755)
        self.machine = Machine(self.root, SKY_ENV / "bin" / "uv")
        self.clone = self.root / "lorry"
        self.out.hidden = [(self.clone, "~/lorry"), (self.root, "~"), (ROOT, "~/lorry")]
        self.env = {}

    @contextlib.contextmanager
    def up(self, keep):
        self.machine.install()
        self.s3 = S3(self.root / "s3")
        probe = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler
        )
        probe.RequestHandlerClass.log_message = lambda *args: None
        threading.Thread(target=probe.serve_forever, daemon=True).start()
        try:
            self.machine.up()
            self.env = self.sky_environment(probe.server_port)
            self.make_clone()
            self.start_sky()
            yield self
        finally:
            if keep:
                exports = {k: v for k, v in self.env.items() if os.environ.get(k) != v}
                print("".join(f"export {k}={shlex.quote(v)}\n" for k, v in exports.items()))
                input(f"the cluster is up, the clone is {self.clone}; Enter takes all down: ")
            self.down()
            probe.shutdown()

    def sky_environment(self, probe_port):
        return {
            **os.environ,
            "HOME": str(self.machine.sky_home),
            "PATH": f"{SKY_ENV}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "tests" / "sky" / "patches"),
            "LORRY_TEST_PROBE": f"http://127.0.0.1:{probe_port}",
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(free_port()),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        }

    def make_clone(self):
        """The repository as a user has it, with a wheel and a .env."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout.split("\n")  # fmt: skip
        for name in filter(None, listed):
            target = self.clone / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        shutil.copytree(ROOT / "dist", self.clone / "dist")
        text = (ROOT / "examples" / "data" / "identity.jsonl").read_text()
        text = text.replace("{{name}}", "Lorry").replace("{{author}}", "the lorry project")
        (self.clone / "data").mkdir()
        (self.clone / "data" / "identity.jsonl").write_text(text)
        many = (text.replace("?", f"? ({n})") for n in range(400))
        (self.clone / "data" / "many.jsonl").write_text("".join(many))
        settings = {
            **USER,
            "AWS_ENDPOINT_URL_S3": self.s3.url,
            "DATASET_NAME": "identity",
            "MODEL_NAME": "demo",
            "DATASET_SOURCE": "data/identity.jsonl",
            "MODEL_SOURCE": "examples/model",
            "LORRY_LEARNING_RATE": "5e-3",
            "LORRY_MAX_STEPS": "200",
            "LORRY_SAVE_STEPS": "20",
            "LORRY_API_KEY": KEY,
        }
        self.dotenv = settings

    def write_dotenv(self, **changes):
        """The .env of the next commands; BUCKET_NAME among the changes names a bucket, made here."""
        settings = {**self.dotenv, **changes}
        self.s3.make_bucket(settings["BUCKET_NAME"])
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.clone / ".env").write_text(text)
        shown = " ".join(f"{n}={v}" for n, v in changes.items())
        self.out.say(f".env: {shown}")

    def start_sky(self):
        python = SKY_ENV / "bin" / "python"
        subprocess.run([python, ROOT / "tests" / "sky" / "catalog.py"], env=self.env, check=True)
        self.sky("api", "start", show=False)
        self.sky("check", "slurm", show=False)

    # ---- commands ------------------------------------------------------------------------------

    def sky(self, *words, show=True, code=0, timeout=900, while_running=None):
        """Runs sky to its end and returns what it said; -y is added where it would ask."""
        asks = words[0] in ("launch", "down") or words[:2] in (
            ("jobs", "launch"), ("serve", "up"), ("serve", "down"),
        )  # fmt: skip
        if show:
            self.out.say("$ sky " + shlex.join(words))
        process = subprocess.Popen(
            ["sky", *words, *(["-y"] if asks else [])], cwd=self.clone, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        timer = threading.Timer(timeout, lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.start()
        watcher = threading.Thread(target=while_running) if while_running else None
        if watcher:
            watcher.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if show:
                self.out.line(line)
        process.wait()
        timer.cancel()
        if watcher:
            watcher.join()
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(said))
        if code is not None and process.returncode != code:
            raise Failed(f"sky {' '.join(words)}: exit code {process.returncode}\n{text[-3000:]}")
        return text

    def bucket(self, name):
        return self.s3.directory / name

    # ---- down ----------------------------------------------------------------------------------

    def down(self):
        if self.env:
            with contextlib.suppress(Failed):
                self.sky("api", "stop", show=False, code=None, timeout=120)
        self.machine.down()
        if hasattr(self, "s3"):
            self.s3.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def tree(directory):
    """Digest of every file below a directory but the records of a model's import, which have the
    times of its files, and the notes of who is at work."""
    left_out = ("models/demo/info.json", "claims/")
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".sgwtmp" not in path.parts
        and not str(path.relative_to(directory)).startswith(left_out)
    }


def wait_for(path, seconds, poll=0.01):
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise Failed(f"{path.name} did not appear within {seconds} s")
        time.sleep(poll)


def last_word(text, pattern):
    found = re.findall(pattern, text)
    return found[-1] if found else None


# ---- scenarios -----------------------------------------------------------------------------------


def launch(rig):
    """allatonce.yaml: from the sources to the fused model, with the command of the guide."""
    out = rig.out
    rig.write_dotenv(BUCKET_NAME="once")
    words = shlex.split("launch -n test sky/allatonce.yaml --env-file .env --workdir . -i 15 --down")
    said = rig.sky(*words)
    out.check("trained: 200 steps" in said, "the run trained 200 steps")
    out.check((rig.bucket("once") / "done/demo/identity/info.json").exists(), "done/ is complete")
    secret = list(rig.machine.user_home.rglob(".env"))
    out.check(not secret, "no .env travelled to the machine")
    out.check("15m (down)" in rig.sky("status", show=False), "the machine goes away when idle")
    cluster = last_word(said, r"Cluster launched: (\S+?)\.")
    rig.sky("exec", cluster, "--env-file", ".env", "sky/allatonce.yaml")
    rig.sky("down", cluster)
    out.check(tree(rig.bucket("once")), "the bucket is what is left")


def job(rig):
    """job.yaml: its machine is taken away in the middle; it ends as an undisturbed run does."""
    out, bucket = rig.out, rig.bucket("job")
    rig.write_dotenv(BUCKET_NAME="job")
    killed = {}

    def take_machine_away():
        wait_for(bucket / "checkpoints/demo/identity", 400)
        time.sleep(5)
        ids = rig.machine.slurm("squeue", "-h", "-o", "%i").split()
        out.say(f"$ scancel {' '.join(ids)}    # the machine is gone")
        rig.machine.slurm("scancel", "--signal=KILL", "--full", *ids, check=False)
        rig.machine.slurm("scancel", *ids)
        killed["ids"] = ids

    said = rig.sky("jobs", "launch", "-n", "killed", "sky/job.yaml", "--env-file", ".env",
                   "--no-use-spot", while_running=take_machine_away)  # fmt: skip
    step = last_word(said, r"going on from step (\d+) of 200")
    out.check(step is not None and int(step) >= 20, f"the second machine went on from step {step}")
    rig.sky("jobs", "queue")
    out.check("SUCCEEDED" in rig.sky("jobs", "queue", "-a", show=False), "the job succeeded")
    compare(rig, "once", "job")


def compare(rig, undisturbed, killed):
    """Bytes of two buckets; differences are allowed where clocks are written down."""
    first, second = tree(rig.bucket(undisturbed)), tree(rig.bucket(killed))
    rig.out.check(first.keys() == second.keys(), f"{len(first)} files, the same in both buckets")
    differ = {name for name in first if first[name] != second[name]}
    # Rates and seconds of the steps, a page of them, and the checksums of these two.
    timed = {f"done/demo/identity/{name}" for name in ("metrics.jsonl", "report.html", "info.json")}
    rig.out.check(differ <= timed, "data, adapter and fused model have the same bytes; with times "
                  f"in them differ: {', '.join(sorted(differ)) or 'none'}")  # fmt: skip


def prepare(rig):
    """prepare.yaml: two nodes leave the bytes of one; one of them killed, a second run does too."""
    out = rig.out
    data = {"DATASET_NAME": "many", "DATASET_SOURCE": "data/many.jsonl",
            "LORRY_SHARD_EXAMPLES": "2000"}  # fmt: skip
    command = shlex.split("launch sky/prepare.yaml --env-file .env --workdir . -i 15 --down")

    rig.write_dotenv(BUCKET_NAME="one", **data)
    rig.sky(*command, "-c", "one", "-n", "prepare", "--num-nodes", "1")
    rig.sky("down", "one")
    one = tree(rig.bucket("one"))
    out.check("model-ready/demo/many/info.json" in one, f"one node left {len(one)} files")

    rig.write_dotenv(BUCKET_NAME="two", **data)
    rig.sky(*command, "-c", "two", "-n", "prepare")
    out.check(tree(rig.bucket("two")) == one, "two nodes left the same bytes")
    rig.sky("down", "two")

    rig.write_dotenv(BUCKET_NAME="cut", **data)
    rig.sky(*command, "-c", "cut", "-n", "prepare", code=None,
            while_running=lambda: kill_node(rig, "n2", rig.bucket("cut")))  # fmt: skip
    # SkyPilot may end the other node too; if it does not, that one takes over.
    left = tree(rig.bucket("cut"))
    finished = "model-ready/demo/many/info.json" in left
    out.say(f"the other node {'took over' if finished else 'was ended too'}: {len(left)} files")
    rig.sky("down", "cut")
    rig.sky(*command, "-c", "again", "-n", "prepare")
    rig.sky("down", "again")
    out.check(tree(rig.bucket("cut")) == one, "one node killed, the second run left the same bytes")


def kill_node(rig, node, bucket):
    """The power of a node goes off as soon as a first standardized shard is there."""
    wait_for(bucket / "standardized/many/0/state.json", 300, poll=0.001)
    rig.out.say(f"$ kill -9 everything on {node}")
    mark = f"SLURMD_NODENAME={node}".encode()
    for process in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if process.owner() == NODE_USER and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def serve(rig):
    """service.yaml: two replicas, and a chat through the endpoint with the openai client."""
    out = rig.out
    rig.write_dotenv(BUCKET_NAME="once")
    rig.sky("serve", "up", "-n", "mymodel", "sky/service.yaml", "--env-file", ".env")
    end = time.monotonic() + 600
    ready = 0
    while ready < 2 and time.monotonic() < end:
        time.sleep(5)
        status = rig.sky("serve", "status", "mymodel", show=False)
        ready = len(re.findall(r"^mymodel .* READY ", status, re.M)) - 1
    for line in status.splitlines():
        out.line(line)
    out.check(ready == 2, "two replicas are ready")
    endpoint = rig.sky("serve", "status", "--endpoint", "mymodel", show=False).split()[-1]
    if "://" not in endpoint:
        endpoint = "http://" + endpoint
    chat(out, endpoint)
    rig.sky("serve", "down", "mymodel")


def chat(out, endpoint):
    client = openai.OpenAI(base_url=f"{endpoint}/v1", api_key=KEY)
    out.check("demo/identity" in [m.id for m in client.models.list()], "/v1/models names the model")
    messages = [{"role": "user", "content": QUESTION}]
    ask = {"model": "demo/identity", "messages": messages, "temperature": 0, "max_tokens": 64}
    answers = set()
    for _ in range(4):  # both replicas are asked
        answers.add(client.chat.completions.create(**ask).choices[0].message.content)
    out.say(f"{QUESTION} {' | '.join(answers)}")
    out.check(len(answers) == 1 and "Lorry" in answers.pop(), "it answers with its name")
    pieces = [c.choices[0].delta.content or "" for c in client.chat.completions.create(
        **ask, stream=True) if c.choices]  # fmt: skip
    out.check(len(pieces) > 3, f"it streams ({len(pieces)} pieces)")
    try:
        openai.OpenAI(base_url=f"{endpoint}/v1", api_key="wrong").models.list()
        out.check(False, "a wrong key is refused")
    except openai.AuthenticationError:
        out.check(True, "a wrong key is refused")


SCENARIOS = {"launch": launch, "job": job, "prepare": prepare, "serve": serve}


def main(words):
    keep = "--keep" in words
    names = [word for word in words if word != "--keep"] or list(SCENARIOS)
    unknown = set(names) - set(SCENARIOS)
    if unknown:
        sys.exit(f"test-sky: there is no {', '.join(unknown)}; choose from {', '.join(SCENARIOS)}")
    if not list((ROOT / "dist").glob("lorry-*.whl")):
        sys.exit("test-sky: there is no wheel in dist/; ./dev wheel makes it")
    if {"job", "serve"} & set(names) and "launch" not in names:
        names.insert(0, "launch")  # both need what it leaves in its bucket
    rig = Rig()
    try:
        with rig.up(keep):
            for name in names:
                rig.out.say(f"==== {SCENARIOS[name].__doc__}")
                SCENARIOS[name](rig)
    except Failed as failure:
        rig.out.say(f"FAILED: {failure}")
        sys.exit(1)
    rig.out.say(f"{rig.out.checks} checks passed")


if __name__ == "__main__":
    main(sys.argv[1:])
