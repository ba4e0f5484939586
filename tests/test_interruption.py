"""kill -9 in the middle of every stage, then the same command again: the result is that of a run
that nothing disturbed. The moments are spread over the stage's own duration, measured first."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import EXAMPLE_MODEL, SEED, SOAK, import_example, on, tree_digest

KILLS = 20 if SOAK else 3  # a stage


def timed(lorry, *args):
    start = time.monotonic()
    lorry(*args, timeout=600)
    return time.monotonic() - start


def kill_after(lorry, seconds, *args):
    """Starts a verb and kills it; False if it was done before."""
    process = lorry.start(*args)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def disturbed(lorry, duration, target, *args, seed):
    """Kills the verb KILLS times at random moments, then lets it end. Where it was done before the
    kill came, `target` is removed, so that there is something to kill again."""
    chance = random.Random(SEED + seed)
    hits = 0
    while hits < KILLS:
        if kill_after(lorry, duration * chance.uniform(0.05, 0.9), *args):
            hits += 1
        else:
            shutil.rmtree(target)
    lorry(*args, timeout=600)


def results(directory):
    """Digests of every file but records of when and how fast."""
    return {
        path: digest
        for path, digest in tree_digest(directory).items()
        if not path.endswith(("info.json", "metrics.jsonl", "report.html"))
    }


@pytest.fixture(scope="module")
def big_source(tmp_path_factory):
    """60,000 conversations, about 30 MB: long enough to be killed in the middle of."""
    path = tmp_path_factory.mktemp("source") / "big.jsonl"
    chance = random.Random(1)
    words = "river stone window market garden silver engine letter bridge paper".split()
    with path.open("w") as file:
        for i in range(60_000):
            turns = [
                {"from": who, "value": " ".join(chance.choices(words, k=30))}
                for who in ("human", "gpt")
            ]
            file.write(json.dumps({"id": i, "conversations": turns}) + "\n")
    return path


def import_big(big_source, bucket):
    names = ("--bucket", bucket, "--dataset", "big")
    return ("import-dataset", big_source, *names, "--shard-examples", 7000)


@pytest.fixture(scope="module")
def undisturbed(lorry, big_source, tmp_path_factory):
    """A bucket where every stage ran to its end at once, and how long each took."""
    bucket = tmp_path_factory.mktemp("undisturbed") / "bucket"
    seconds = {"import": timed(lorry, *import_big(big_source, bucket))}
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    pretokenize = ("pretokenize", "--bucket", bucket, "--dataset", "big", "--model", "demo")
    seconds["pretokenize"] = timed(lorry, *pretokenize)
    return bucket, seconds


def test_a_killed_import_ends_with_the_same_shards(lorry, big_source, undisturbed, bucket):
    reference, seconds = undisturbed
    disturbed(lorry, seconds["import"], bucket, *import_big(big_source, bucket), seed=1)
    for stage in ("raw", "standardized"):
        assert results(bucket / stage) == results(reference / stage)


def test_a_killed_pretokenize_ends_with_the_same_shards(lorry, undisturbed, bucket):
    reference, seconds = undisturbed
    for stage in ("standardized", "models"):
        shutil.copytree(reference / stage, bucket / stage)
    verb = ("pretokenize", "--bucket", bucket, "--dataset", "big", "--model", "demo")
    disturbed(lorry, seconds["pretokenize"], bucket / "model-ready", *verb, seed=2)
    assert results(bucket / "model-ready") == results(reference / "model-ready")


def test_a_killed_model_import_leaves_nothing_that_counts(lorry, bucket):
    verb = ("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    for milliseconds in (5, 20, 60, 120):
        kill_after(lorry, milliseconds / 1000, *verb)
    lorry(*verb)
    stored = tree_digest(bucket / "models" / "demo")
    for name, digest in tree_digest(EXAMPLE_MODEL).items():
        if name in stored or name.endswith((".json", ".safetensors", ".jinja")):
            assert stored[name] == digest, name


# Small steps: what is tested is where a run goes on, not how much it trains.
TRAIN_FLAGS = ("--max-steps", 16, "--batch-size", 1, "--learning-rate", "1e-3", "--save-steps", 3)
PACKED = ("--lora-dropout", "0.1", "--packing", "--max-length", 256)


@pytest.mark.parametrize("extra", [(), PACKED, ("--full",)])
def test_a_killed_training_ends_with_the_same_weights(lorry, tmp_path, extra):
    one, other = tmp_path / "one", tmp_path / "other"
    for bucket in (one, other):
        import_example(lorry, bucket)
        lorry("pretokenize", *on(bucket))
    seconds = timed(lorry, "train", *on(one), *TRAIN_FLAGS, *extra)
    disturbed(lorry, seconds, other / "done", "train", *on(other), *TRAIN_FLAGS, *extra, seed=3)
    assert results(other / "done") == results(one / "done")
    assert losses(other) == losses(one)


def losses(bucket):
    lines = (bucket / "done" / "demo" / "identity" / "metrics.jsonl").read_text().splitlines()
    return [(r["step"], r["loss"]) for r in map(json.loads, lines)]


def test_sigterm_saves_a_checkpoint_and_says_so_by_its_exit_code(lorry, bucket):
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    flags = ("--max-steps", 100_000, "--epochs", 100_000, "--save-steps", 100_000)
    process = lorry.start("train", *on(bucket), *flags)
    for line in process.stderr:
        if "loss" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert any(p.is_file() for p in (bucket / "checkpoints" / "demo" / "identity").rglob("*"))
    assert not (bucket / "done" / "demo" / "identity" / "info.json").exists()


def test_ctrl_c_ends_an_import_with_130_and_nothing_that_counts(lorry, big_source, bucket):
    process = lorry.start(*import_big(big_source, bucket))
    while process.poll() is None and not (bucket / "raw").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the import was done before the signal came")
    assert process.returncode == 130
    assert not (bucket / "standardized" / "big" / "info.json").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB; `grow()` gives it room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("a file system of its own needs root")

    def grow():
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)

    yield disk, grow
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("full", ["import-dataset", "standardize", "pretokenize"])
def test_a_full_disk_is_said_and_a_rerun_with_room_goes_on(
    lorry, big_source, undisturbed, small_disk, full
):
    reference, _ = undisturbed
    bucket, grow = small_disk[0] / "bucket", small_disk[1]
    named = ("--bucket", bucket, "--dataset", "big")
    if full == "import-dataset":
        verb = (*import_big(big_source, bucket), "--no-standardize")
    elif full == "standardize":
        link(reference / "raw", bucket / "raw")
        verb = ("standardize", *named)
    else:
        link(reference / "standardized", bucket / "standardized")
        link(reference / "models", bucket / "models")
        verb = ("pretokenize", *named, "--model", "demo")
    done = lorry(*verb, code=1)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in line
    stage = {"import-dataset": "raw", "pretokenize": "model-ready"}.get(full, "standardized")
    assert not list((bucket / stage).rglob("info.json"))
    assert not list((bucket / ".lorry-tmp").glob("*")), "a temporary file was left behind"
    grow()
    lorry(*verb)
    assert results(bucket / stage) == results(reference / stage)


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
