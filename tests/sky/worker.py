"""Answers test_sky.py's questions with the real sky package: JSON lines in, JSON lines out.

Runs in .venv-sky with a scratch HOME. Each question is {"op": name, ...}, its answer {"ok": ...} or
{"error": "Type: message"}. Nothing here needs a network or a cloud's credentials.
"""

import io
import json
import os
import pathlib
import sys
import tempfile
import zipfile

os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
answers, sys.stdout = sys.stdout, sys.stderr  # sky prints as it likes

from catalog import write_catalog  # noqa: E402

write_catalog(pathlib.Path.home())

import sky  # noqa: E402
import sky.optimizer  # noqa: E402
from sky import check, clouds, dag as dag_lib  # noqa: E402
from sky.client.cli import command, flags  # noqa: E402
from sky.data import storage_utils  # noqa: E402
from sky.jobs import recovery_strategy  # noqa: E402
from sky.utils import registry, yaml_utils  # noqa: E402

check.get_cached_enabled_clouds_or_refresh = lambda *a, **k: [clouds.AWS(), clouds.RunPod()]


def load(question):
    """The task of a YAML file, with what --env-file reads as its variables and secrets."""
    os.chdir(question["directory"])
    variables = list((question.get("env") or {}).items())
    with open(question["yaml"]) as file:
        text = file.read()
    for old, new in question.get("replace", []):
        assert old in text, f"{question['yaml']} has no '{old}'"
        text = text.replace(old, new)
    yaml_utils.check_no_duplicate_keys(text)
    return sky.Task.from_yaml_config(
        yaml_utils.safe_load(text), env_overrides=variables, secrets_overrides=variables
    )


def read(question):
    task = load(question)
    task.validate()
    resources = [r.to_yaml_config() for r in task.resources]
    recovery = [r.job_recovery for r in task.resources]
    return {
        "resources": resources,
        "accelerators": sorted({name for r in task.resources for name in r.accelerators or {}}),
        "spot": sorted({r.use_spot for r in task.resources}),
        "recovery": recovery[0],
        "known_strategies": sorted(registry.JOBS_RECOVERY_STRATEGY_REGISTRY),
        "nodes": task.num_nodes,
        "envs": task.envs,
        "secrets": sorted(task.secrets),
        "unfilled_secrets": [ref.name for ref in task.managed_secret_refs],
        "service": task.service and task.service.to_yaml_config(),
        "workdir": task.workdir,
        "setup": task.setup,
        "run": task.run,
        "mounts": sorted((task.file_mounts or {}) | task.storage_mounts),
    }


def choose(question):
    """The machine that the optimizer takes from the catalogue."""
    task = load(question)
    task.validate()
    with dag_lib.Dag() as dag:
        dag.add(task)
    sky.optimizer.Optimizer.optimize(dag, quiet=True)
    best = task.best_resources
    return {"machine": best.instance_type, "spot": best.use_spot, "cloud": str(best.cloud)}


def travels(question):
    """What of a workdir is uploaded: the names in the archive that the client makes of it."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = os.path.join(scratch, "workdir.zip")
        storage_utils.zip_files_and_folders([question["directory"]], archive, io.StringIO())
        with zipfile.ZipFile(archive) as file:
            root = question["directory"].lstrip("/")
            return sorted(os.path.relpath(name, root) for name in file.namelist())


def parse(question):
    """Whether the command line takes these arguments: the names of what it understood."""
    os.chdir(question["directory"])
    group, words = command.cli, list(question["words"])
    while hasattr(group, "commands") and words:
        name = words.pop(0)
        if name not in group.commands:
            raise ValueError(f"sky has no command {name}")
        group = group.commands[name]
    return sorted(n for n, v in group.make_context(name, words).params.items() if v)


def dotenv(question):
    return flags._parse_dotenv_file(question["path"])


OPERATIONS = {f.__name__: f for f in (read, choose, travels, parse, dotenv)}
assert recovery_strategy

for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = {"ok": OPERATIONS[question["op"]](question)}
    except (Exception, SystemExit) as error:  # the error is the answer
        text = getattr(error, "format_message", lambda error=error: str(error))()
        answer = {"error": f"{type(error).__name__}: {text}"}
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()
