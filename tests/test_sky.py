"""sky/: the YAML files as the real sky package reads them, the set-up of a machine, what travels to it.

SkyPilot lives in .venv-sky (`./dev test` makes it); without it those tests skip. Nothing here needs
a network. `./dev test-sky` really runs the same files.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import zipfile

import pytest
import yaml

from conftest import ROOT
from s3 import s3  # noqa: F401, a fixture

SKY_PYTHON = ROOT / ".venv-sky" / "bin" / "python"
FILES = sorted(path.name for path in (ROOT / "sky").glob("*.yaml"))
GPUS = ["A100", "A100-80GB", "A10G", "H100", "H200", "L4", "T4"]
FILLED = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "BUCKET_NAME": "bucket",
    "DATASET_NAME": "owner/data",
    "MODEL_NAME": "owner/model",
}
SCRIPT_NAMES = {"DATASET_SOURCE", "MODEL_SOURCE", "LORRY_WHEEL"}


class Sky:
    """The real package, in a process of its own that answers questions (tests/sky/worker.py)."""

    def __init__(self, home):
        if not SKY_PYTHON.exists():
            pytest.skip("no .venv-sky; ./dev test makes it")
        self.process = subprocess.Popen(
            [SKY_PYTHON, ROOT / "tests" / "sky" / "worker.py"],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, op, **question):
        question = {"op": op, "directory": str(ROOT), **question}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __call__(self, op, **question):
        answer = self.ask(op, **question)
        assert "ok" in answer, answer["error"]
        return answer["ok"]

    def refusal(self, op, **question):
        answer = self.ask(op, **question)
        assert "error" in answer, f"was not refused: {question}"
        return answer["error"]

    def read(self, name, env=FILLED, **question):
        return self("read", yaml=f"sky/{name}", env=env, **question)


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    worker = Sky(tmp_path_factory.mktemp("sky-home"))
    yield worker
    worker.process.stdin.close()
    worker.process.wait(30)


# ---- the YAML files ------------------------------------------------------------------------------


def test_there_are_four_files():
    assert FILES == ["allatonce.yaml", "job.yaml", "prepare.yaml", "service.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_sky_accepts_the_file_and_finds_a_machine(sky, name):
    task = sky.read(name)
    assert task["unfilled_secrets"] == []
    assert task["mounts"] == []  # no bucket mounts: lorry speaks S3 itself
    machine = sky("choose", yaml=f"sky/{name}", env=FILLED)
    expected = "m6i.2xlarge" if name == "prepare.yaml" else "g4dn.xlarge"
    assert machine["machine"] == expected, "the cheapest of the catalogue"
    assert machine["spot"] == (name != "service.yaml")


@pytest.mark.parametrize("name", ["allatonce.yaml", "job.yaml", "service.yaml"])
def test_every_gpu_of_the_guide_is_an_alternative(sky, name):
    assert sky.read(name)["accelerators"] == GPUS


def test_spot_is_allowed_at_once_required_as_a_job_and_avoided_for_a_service(sky):
    assert sky.read("allatonce.yaml")["spot"] == [False, True]
    assert sky.read("prepare.yaml")["spot"] == [False, True]
    assert sky.read("job.yaml")["spot"] == [True]
    assert sky.read("service.yaml")["spot"] == [False]


def test_a_job_recovers_from_lorrys_own_exit_codes(sky):
    task = sky.read("job.yaml")
    # The client does not check the strategy's name.
    assert task["recovery"]["strategy"].lower() in task["known_strategies"]
    assert task["recovery"]["recover_on_exit_codes"] == [143]
    assert 0 < task["recovery"]["max_restarts_on_errors"] <= 3


def test_a_forgotten_machine_goes_away(sky):
    for name in ("allatonce.yaml", "prepare.yaml"):
        for resources in sky.read(name)["resources"]:
            assert resources["autostop"] == {"idle_minutes": 15, "down": True}


def test_nodes_of_prepare_share_the_work_without_torch(sky):
    task = sky.read("prepare.yaml")
    assert task["nodes"] == 2
    assert task["accelerators"] == []
    assert "--data-only" in task["setup"]


def test_the_service_probes_with_the_key_and_has_two_replicas(sky):
    service = sky.read("service.yaml", env={**FILLED, "LORRY_API_KEY": "sesame"})["service"]
    assert service["readiness_probe"]["path"] == "/v1/models"
    assert service["readiness_probe"]["headers"] == {"Authorization": "Bearer sesame"}
    assert service["replica_policy"]["min_replicas"] == 2
    assert service["load_balancer"]["stream_timeout_seconds"] >= 600


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("missing", sorted(FILLED))
def test_what_must_be_set_is_asked_for(sky, name, missing):
    env = {n: v for n, v in FILLED.items() if n != missing}
    answer = sky.ask("read", yaml=f"sky/{name}", env=env)
    if missing.startswith("AWS_"):  # a secret without a value is refused when it is launched
        assert answer["ok"]["unfilled_secrets"] == [missing]
    else:
        assert f"Environment variable '{missing}' is None" in answer["error"]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("allatonce.yaml", "accelerators:", "acelerators:", "did you mean 'accelerators'"),
        ("allatonce.yaml", "use_spot: false", "use_sopt: false", "use_sopt"),
        ("allatonce.yaml", "idle_minutes", "idle_minute", "idle_minute"),
        ("allatonce.yaml", "\nsetup:", "\nsetups:", "setups"),
        ("allatonce.yaml", "\nenvs:", "\nenvs:\n  9X: 1", "9X"),
        ("allatonce.yaml", "\nworkdir: .", "\nworkdir: .\nworkdir: .", "workdir"),
        ("job.yaml", "use_spot: true", "use_spot: maybe", "maybe"),
        ("prepare.yaml", "num_nodes: 2", "num_nodes: two", "two"),
        ("service.yaml", "readiness_probe:", "readyness_probe:", "readyness_probe"),
        ("service.yaml", "initial_delay_seconds", "initial_delay", "initial_delay"),
        ("service.yaml", "min_replicas: 2", "min_replicas: 5", "max_replicas"),
        ("service.yaml", "ports: 8080", "ports: 80800", "80800"),
    ],
)
def test_a_mistake_in_a_file_is_caught(sky, name, old, new, words):
    text = sky.refusal("read", yaml=f"sky/{name}", env=FILLED, replace=[[old, new]])
    assert words in text


# ---- what the machines run -----------------------------------------------------------------------


class Task:
    """The `run` of a file as a machine runs it, with the program that was built."""

    def __init__(self, lorry, directory):
        self.lorry = lorry
        self.home = directory / "home"
        (self.home / "lorry-env" / "bin").mkdir(parents=True)
        (self.home / "lorry-env" / "bin" / "lorry").symlink_to(lorry.binary)
        self.bucket = directory / "bucket"

    def __call__(self, name, code=0, **env):
        task = yaml.safe_load((ROOT / "sky" / name).read_text())
        done = subprocess.run(
            ["bash", "-c", task["run"]],
            cwd=ROOT,
            env={
                **self.lorry.env,
                **{n: v for n, v in task["envs"].items() if v is not None},
                "HOME": str(self.home),
                "BUCKET_NAME": str(self.bucket),
                "DATASET_NAME": "identity",
                "MODEL_NAME": "demo",
                "DATASET_SOURCE": "examples/data/identity.jsonl",
                "MODEL_SOURCE": "examples/model",
                "LORRY_SHARD_EXAMPLES": "40",
                "LORRY_MAX_STEPS": "2",
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stderr


@pytest.fixture
def task(lorry, tmp_path):
    return Task(lorry, tmp_path)


def test_after_prepare_the_gpu_machine_only_trains(task):
    task("prepare.yaml")
    assert (task.bucket / "model-ready/demo/identity/info.json").exists()
    said = task("allatonce.yaml")
    assert len(re.findall("(import-dataset|import-model|pretokenize): .*nothing to do", said)) == 3
    assert "trained: 2 steps" in said


def test_the_same_run_again_trains_nothing(task):
    task("job.yaml")
    said = task("job.yaml")
    assert "step 1/2" not in said


def test_a_source_that_travelled_again_is_the_same_source(task, tmp_path):
    """Each launch uploads the workdir anew, which gives its files other times."""
    source = tmp_path / "data.jsonl"
    source.write_bytes((ROOT / "examples" / "data" / "identity.jsonl").read_bytes())
    task("prepare.yaml", DATASET_SOURCE=str(source))
    before = (task.bucket / "raw/identity/info.json").read_bytes()
    os.utime(source, (1e9, 1e9))
    assert "nothing to do" in task("prepare.yaml", DATASET_SOURCE=str(source))
    assert (task.bucket / "raw/identity/info.json").read_bytes() == before
    source.write_bytes(source.read_bytes().replace(b"hello", b"hallo", 1))  # of the same size
    task("prepare.yaml", DATASET_SOURCE=str(source))
    assert (task.bucket / "raw/identity/info.json").read_bytes() != before


def test_a_name_that_is_neither_in_the_bucket_nor_on_the_hub_is_an_error_of_one_line(task):
    said = task("allatonce.yaml", code=1, DATASET_SOURCE="", DATASET_NAME="chats")
    assert "chats" in said
    assert said.count("error:") == 1


# ---- names of the environment --------------------------------------------------------------------


def example_names():
    """Names in .env.example, set or commented out."""
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.M))


def lorry_names(lorry):
    """What lorry reads: its settings, and a LORRY_ variable for every flag."""
    names = set(FILLED) | {"AWS_ENDPOINT_URL_S3", "AWS_REGION", "HF_TOKEN", "HF_ENDPOINT"}
    verbs = set(re.findall(r"^  ([a-z-]+) ", lorry("--help").stdout, re.M)) - {"lorry"}
    for verb in verbs:
        for flag in re.findall(r"--([a-z][a-z0-9-]+)", lorry(verb, "--help").stdout):
            names.add("LORRY_" + flag.upper().replace("-", "_"))
    return names


@pytest.mark.parametrize("name", FILES)
def test_every_variable_of_a_file_is_explained_in_env_example(sky, name):
    task = sky.read(name)
    assert set(task["envs"]) | set(task["secrets"]) <= example_names()


def test_every_name_in_env_example_is_read_by_somebody(lorry):
    unread = example_names() - lorry_names(lorry) - SCRIPT_NAMES
    assert unread == set()


def test_env_example_means_the_same_to_sky_and_to_lorry(sky, lorry, tmp_path):
    text = (ROOT / ".env.example").read_text().replace("BUCKET_NAME=", "BUCKET_NAME=./nowhere")
    text = text.replace("#DATASET_SOURCE=", "DATASET_SOURCE=").replace("#MODEL_", "MODEL_")
    file = lorry.directory / ".env"
    file.write_text(text)
    try:
        read = sky("dotenv", path=str(file))
        said = lorry("status", code=1).stderr
    finally:
        file.unlink()  # other tests run there
    assert read["MODEL_NAME"] == "Qwen/Qwen2.5-0.5B"
    assert read["AWS_REGION"] == "auto"
    assert "there is no bucket at ./nowhere" in said
    assert "does not read" not in said


# ---- commands ------------------------------------------------------------------------------------


def commands_in(path):
    """The sky commands that a page or a YAML file shows."""
    for line in path.read_text().splitlines():
        line = line.lstrip("#").strip()
        if re.match(r"sky (launch|jobs|serve|logs|down|status|gpus|check|cancel)\b", line):
            yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("name", ["docs/sky.md", *(f"sky/{name}" for name in FILES)])
def test_the_commands_that_are_shown_exist(sky, name, tmp_path):
    commands = list(commands_in(ROOT / name))
    assert commands
    for words in commands:
        words = [".env.example" if word == ".env" else word for word in words]
        sky("parse", words=words)


def test_the_command_of_the_guide_is_in_its_file():
    text = (ROOT / "sky" / "allatonce.yaml").read_text()
    assert "sky launch -n test sky/allatonce.yaml --env-file .env --workdir . -i 15 --down" in text
    text = (ROOT / "sky" / "service.yaml").read_text()
    assert "sky serve up -n mymodel sky/service.yaml --env-file .env" in text


# ---- what travels --------------------------------------------------------------------------------


def test_the_wheel_travels_and_secrets_and_heavy_things_do_not(sky, tmp_path):
    kept = ["dist/lorry-1-py3-none-any.whl", "sky/setup.sh", "examples/data/a.jsonl", "data/b.jsonl"]
    left = [".env", ".env.local", "deep/er/.env", ".git/config", "build/release/lorry"]
    left += ["bucket/models/m/model.safetensors", ".venv/bin/python", ".venv-peers/bin/python"]
    left += [".venv-sky/bin/python", ".cache/x", "tests/__pycache__/x.pyc"]
    for name in kept + left:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".skyignore").write_bytes((ROOT / ".skyignore").read_bytes())
    names = sky("travels", directory=str(tmp_path))
    assert set(kept) <= set(names)
    assert not set(left) & set(names)
    assert not [name for name in names if ".env" in name]


# ---- the set-up of a machine ---------------------------------------------------------------------


class Bare:
    """A machine with a home directory of its own, on which `uv` and `nvidia-smi` are what a test says
    they are: uv writes down what it is asked for and installs a program that does nothing."""

    def __init__(self, directory):
        self.home = directory / "home"
        self.bin = directory / "bin"
        self.workdir = directory / "work"
        for path in (self.home, self.bin, self.workdir / "sky", self.workdir / "dist"):
            path.mkdir(parents=True)
        for name in ("setup.sh", "fetch.py"):
            (self.workdir / "sky" / name).write_bytes((ROOT / "sky" / name).read_bytes())
        self.asked = directory / "asked"
        self.program(
            "uv",
            f'echo "$*" >>{self.asked}\n'
            'if [ "$1" = venv ]; then mkdir -p "$HOME/lorry-env/bin"; cd "$HOME/lorry-env"\n'
            "touch pyvenv.cfg; printf '#!/bin/sh\\necho lorry 1\\n' >bin/lorry; chmod +x bin/lorry; fi",
        )
        self.program("nvidia-smi", "exit 9")

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def driver(self, version):
        self.program("nvidia-smi", f"echo {version}; echo {version}")

    def wheel(self, name="lorry-1-py3-none-any.whl", folder="dist"):
        path = self.workdir / folder / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "lorry-1.dist-info/METADATA",
                "Name: lorry\nRequires-Dist: pyarrow>=26,<27\nRequires-Dist: torch==2.11.*\n",
            )
        return path

    def setup(self, *args, code=0, **env):
        path = f"{self.bin}:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", self.workdir / "sky" / "setup.sh", *args],
            env={"HOME": str(self.home), "PATH": path, "no_proxy": "127.0.0.1", **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    def installed(self):
        """What uv was asked to install."""
        lines = self.asked.read_text().splitlines()
        return [line.split("/python ", 1)[1] for line in lines if line.startswith("pip install")]


@pytest.fixture
def bare(tmp_path):
    return Bare(tmp_path)


@pytest.mark.parametrize(
    ("driver", "torch"),
    [
        ("580.65.06", "torch==2.11.*"),
        ("595.10", "torch==2.11.*"),
        ("575.57.08", "--index-url https://download.pytorch.org/whl/cu128 torch==2.11.*"),
        ("535.183.01", "--index-url https://download.pytorch.org/whl/cu126 torch==2.11.*"),
    ],
)
def test_the_driver_decides_which_libtorch_is_installed(bare, driver, torch):
    wheel = bare.wheel()
    bare.driver(driver)
    bare.setup()
    assert bare.installed() == [torch, "pyarrow>=26,<27", f"--no-deps {wheel}"]


def test_without_a_gpu_there_are_no_gigabytes_of_cuda(bare):
    bare.wheel()
    bare.setup()
    assert bare.installed()[0].startswith("--no-deps torch==2.11.* nvidia-cuda-runtime==13.0.*")


def test_machines_that_only_prepare_data_get_no_libtorch(bare):
    wheel = bare.wheel()
    bare.driver("580.65.06")
    bare.setup("--data-only")
    assert bare.installed() == ["pyarrow>=26,<27", f"--no-deps {wheel}"]


def test_a_gpu_without_a_driver_is_said(bare):
    bare.wheel()
    assert "nvidia-smi finds no driver" in bare.setup(SKYPILOT_SETUP_NUM_GPUS_PER_NODE="1")


def test_a_driver_that_is_too_old_ends_the_setup(bare):
    bare.wheel()
    bare.driver("470.82.01")
    said = bare.setup(code=1)
    assert said.count("\n") == 1
    assert "driver 470.82.01 is too old" in said and "525" in said


def test_a_second_setup_does_nothing_until_the_wheel_changes(bare):
    bare.wheel()
    bare.setup()
    bare.asked.unlink()
    assert "installed already" in bare.setup()
    assert not bare.asked.exists()
    bare.wheel("lorry-2-py3-none-any.whl").open("ab").write(b"another")
    bare.setup()
    assert bare.installed()[-1].endswith("lorry-2-py3-none-any.whl")


def test_a_missing_wheel_is_one_line_that_says_what_to_do(bare):
    said = bare.setup(code=1)
    assert said.count("\n") == 1
    assert "./dev wheel" in said and "LORRY_WHEEL" in said


def test_the_wheel_may_be_named(bare):
    bare.wheel("lorry-1-py3-none-any.whl")
    named = bare.wheel("lorry-7-py3-none-any.whl", folder=".")
    bare.setup(LORRY_WHEEL="lorry-7-py3-none-any.whl")
    assert bare.installed()[-1] == f"--no-deps {named}"
    assert "no file gone.whl" in bare.setup(LORRY_WHEEL="gone.whl", code=1)


def test_a_file_that_is_no_wheel_is_refused(bare):
    (bare.workdir / "dist" / "lorry-1-py3-none-any.whl").write_text("not found")
    assert bare.setup(code=1).endswith("lorry-1-py3-none-any.whl is not a whole wheel\n")


def test_a_failed_installation_ends_with_a_sentence(bare):
    bare.wheel()
    bare.program("uv", 'if [ "$1" = pip ]; then echo "no such host" >&2; exit 2; fi')
    said = bare.setup(code=1).splitlines()
    assert said[0] == "no such host"
    assert "could not install" in said[-1] and "package index" in said[-1]


def s3_settings(s3, **changes):
    return {**s3.env(), **changes}


def test_the_wheel_is_fetched_from_the_bucket(bare, s3):
    s3.make_bucket("wheels")
    path = bare.wheel("lorry-3 x-py3-none-any.whl", folder=".")
    (s3.directory / "wheels" / "a b").mkdir(exist_ok=True)
    path.rename(s3.directory / "wheels" / "a b" / path.name)
    bare.setup(LORRY_WHEEL=f"s3://wheels/a b/{path.name}", **s3_settings(s3))
    assert bare.installed()[-1].endswith(path.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY is not this key's secret"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID is not known"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"LORRY_WHEEL": "s3://wheels/gone.whl"}, "there is no such object"),
        ({"LORRY_WHEEL": "s3://nowhere/gone.whl"}, "there is no such bucket"),
        ({"LORRY_WHEEL": "gopher://wheels/gone.whl"}, "neither https://... nor s3://"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "no answer"),
    ],
)
def test_a_wheel_that_cannot_be_fetched_is_one_line(bare, s3, change, words):
    s3.make_bucket("wheels")
    settings = s3_settings(s3, LORRY_WHEEL="s3://wheels/x.whl", **{})
    said = bare.setup(code=1, **{**settings, **change})
    assert said.count("\n") == 1, said
    assert words in said
    assert "testtest" not in said and "Signature=" not in said
