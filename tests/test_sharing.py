"""Data stages that several processes share on one bucket, at the same time, killed and run again:
the bytes are those of one undisturbed process, and the ledger tells of every row."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import EXAMPLE_MODEL, tree_digest
from s3 import s3  # noqa: F401  (a fixture)

STAGES = ("standardized", "model-ready")
ROWS = 20_000
SHARD = 1_500  # rows; 14 shards
NODES = ("--node-seconds", 2)  # until a node that never came counts as lost


def turn(role, content):
    return {"role": role, "content": content}


def random_rows(n):
    """Conversations, a few of which are dropped or malformed, or have what others have not."""
    chance = random.Random(5)
    words = "river stone window market garden silver engine letter bridge paper {{name}}".split()

    def text():
        return " ".join(chance.choices(words, k=20))

    for i in range(n):
        turns = [turn("user", text()), turn("assistant", text())]
        kind = chance.random()
        if kind < 0.003:
            turns = []
        elif kind < 0.006:
            turns = turns[:1]
        elif kind < 0.007:
            turns[0]["role"] = "alien"
        elif i > 0.8 * n and kind < 0.01:
            call = {"name": "add", "arguments": {"a": i}}
            turns[1] = turn("function_call", json.dumps(call))
        elif kind < 0.02:
            turns.insert(0, turn("system", text()))
        yield {"messages": turns}


def fate(row):
    """What becomes of a row: None if it is kept."""
    turns = row["messages"]
    if any(each["role"] == "alien" for each in turns):
        return "malformed"
    if not turns:
        return "empty conversation"
    if not any(each["role"] in ("assistant", "function_call") for each in turns):
        return "no assistant turn"
    return None


@pytest.fixture(scope="module")
def rows():
    return list(random_rows(ROWS))


@pytest.fixture(scope="module")
def raw(lorry, rows, tmp_path_factory):
    """A bucket with raw shards and a model. Copy it, do not write to it."""
    directory = tmp_path_factory.mktemp("raw")
    source = directory / "talk.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bucket = directory / "bucket"
    lorry("import-dataset", source, "--bucket", bucket, "--no-standardize", "--shard-examples", SHARD)
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    return bucket


def verbs(bucket):
    names = ("--bucket", bucket, "--dataset", "talk")
    return (
        ("standardize", *names, "--skip-bad-rows", 1000, "--set", "name=Ada"),
        ("pretokenize", *names, "--model", "demo"),
    )


@pytest.fixture(scope="module")
def alone(lorry, raw, tmp_path_factory):
    """What one process makes of it."""
    bucket = tmp_path_factory.mktemp("alone") / "bucket"
    shutil.copytree(raw, bucket)
    for verb in verbs(bucket):
        lorry(*verb)
    return bucket


def same(bucket, reference):
    for stage in STAGES:
        assert tree_digest(bucket / stage) == tree_digest(reference / stage)


def part(lorry, verb, rank, world_size, env=None):
    flags = ("--json", "--rank", rank, "--world-size", world_size)
    return lorry.start(*verb, *flags, *NODES, env=env)


def outcome(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


@pytest.mark.parametrize("nodes", [2, 3])
def test_nodes_that_work_at_the_same_time_make_what_one_makes(lorry, raw, alone, tmp_path, nodes):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    for verb in verbs(bucket):
        running = [part(lorry, verb, rank, nodes) for rank in range(nodes)]
        outcomes = [outcome(process) for process in running]
        assert all(report["complete"] for report, _ in outcomes), "each waits for the others"
    same(bucket, alone)


def test_without_waiting_whoever_comes_last_completes_the_stage(lorry, raw, alone, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    for verb in verbs(bucket):
        running = [part(lorry, (*verb, "--no-wait"), rank, 2) for rank in range(2)]
        outcomes = [outcome(process) for process in running]
        assert any(report["complete"] for report, _ in outcomes)
        for report, said in outcomes:
            if not report["complete"]:
                assert f"{report['missing']} of 14 shards are other nodes' work" in said
    same(bucket, alone)


def test_two_processes_with_the_same_work_do_it_once(lorry, raw, alone, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    for verb in verbs(bucket):
        running = [part(lorry, verb, 0, 1) for _ in range(2)]
        outcomes = [outcome(process)[0] for process in running]
        assert all(report["complete"] for report in outcomes)
        assert sum(not report["up_to_date"] for report in outcomes) == 1
    same(bucket, alone)


def test_a_lost_nodes_part_is_taken_up_by_the_others(lorry, raw, alone, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    chance = random.Random(3)
    for verb in verbs(bucket):
        survivor, lost = part(lorry, verb, 0, 2), part(lorry, verb, 1, 2)
        time.sleep(chance.uniform(0.0, 0.15))
        lost.kill()
        lost.communicate()
        assert outcome(survivor)[0]["complete"]
    same(bucket, alone)


@pytest.mark.parametrize("nodes", [1, 2])
def test_killed_again_and_again_it_ends_with_the_same_bytes(lorry, raw, alone, tmp_path, nodes):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    chance = random.Random(nodes)
    for verb in verbs(bucket):
        for _ in range(6):
            running = [part(lorry, verb, rank, nodes) for rank in range(nodes)]
            time.sleep(chance.uniform(0.01, 0.25))
            for process in running:
                process.kill()
                process.communicate()
        assert lorry.json(*verb, "--json")["complete"]
    same(bucket, alone)


def test_nodes_share_a_bucket_on_s3(lorry, rows, alone, s3, tmp_path):
    bucket, env = s3.make_bucket("sharing"), s3.env()
    source = tmp_path / "talk.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ("--bucket", bucket)
    shards = ("--no-standardize", "--shard-examples", SHARD)
    lorry("import-dataset", source, *names, *shards, env=env)
    lorry("import-model", EXAMPLE_MODEL, *names, "--model", "demo", env=env)
    for verb in verbs(bucket):
        nodes = [part(lorry, verb, rank, 3, env) for rank in range(3)]
        time.sleep(0.2)
        nodes[2].kill()
        nodes[2].communicate()
        outcome(nodes[0])
        outcome(nodes[1])
        assert outcome(part(lorry, verb, 2, 3, env))[0]["complete"]
    # The raw shards name their source, so that these standardized ones have keys of their own.
    for stage in STAGES:
        got, want = (
            {path: digest for path, digest in tree_digest(root / stage).items() if "data-" in path}
            for root in (s3.directory / "sharing", alone)
        )
        assert got == want


def test_skypilots_variables_say_rank_and_nodes(lorry, raw, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    standardize, _ = verbs(bucket)
    env = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "3"}
    report = lorry.json(*standardize, "--json", "--no-wait", env=env)
    assert not report["complete"] and report["missing"] == 14 - 5
    made = {path.name for path in (bucket / "standardized" / "talk").iterdir() if path.is_dir()}
    assert made == {"1", "4", "7", "10", "13"}
    assert lorry.json(*standardize, "--json", "--world-size", 1, env=env)["complete"]


def test_a_rank_beyond_the_nodes_is_wrong_usage(lorry, raw):
    standardize, _ = verbs(raw)
    done = lorry(*standardize, "--rank", 2, "--world-size", 2, code=2)
    assert "ranks are counted from 0" in done.stderr


def test_the_ledger_tells_of_every_row(alone, rows):
    info = json.loads((alone / "standardized/talk/info.json").read_text())
    fates = [fate(row) for row in rows]
    dropped = {reason: fates.count(reason) for reason in set(fates) - {None}}
    assert info["ledger"] == {
        "read": ROWS,
        "kept": fates.count(None),
        "dropped": dropped,
        "noted": {},
    }
    lines = (alone / "standardized/talk/ledger.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == info["ledger"]
    got = [json.loads(line) for line in lines[1:]]
    for reason in dropped:
        named = [(line["place"], line["row"]) for line in got if line["reason"] == reason]
        where = [
            (f"raw/talk/{i // SHARD}", i % SHARD) for i, what in enumerate(fates) if what == reason
        ]
        assert named == where[:1000]
    assert all("alien" in line["detail"] for line in got if line["reason"] == "malformed")
    assert sum(info["shard_rows"]) == info["rows"] == fates.count(None)


def test_rows_with_nothing_to_train_on_are_noted(lorry, tmp_path):
    source = tmp_path / "ds.jsonl"
    texts = [{"messages": [turn("user", "hello"), turn("assistant", f"{i}")]} for i in range(50)]
    source.write_text("".join(json.dumps(row) + "\n" for row in texts))
    bucket = tmp_path / "bucket"
    lorry("import-dataset", source, "--bucket", bucket)
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    lorry("pretokenize", "--bucket", bucket)
    info = json.loads((bucket / "model-ready/demo/ds/info.json").read_text())
    assert info["ledger"]["read"] == info["ledger"]["kept"] == 50
    noted = info["ledger"]["noted"].items()
    without = sum(rows for reason, rows in noted if reason.startswith("nothing to train on: "))
    assert without == info["rows_without_target"]
    assert (bucket / "model-ready/demo/ds/ledger.jsonl").exists()


def test_too_many_dropped_rows_stop_the_stage_before_it_is_complete(lorry, raw, rows, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    standardize, _ = verbs(bucket)
    gone = sum(fate(row) is not None for row in rows)
    done = lorry(*standardize, "--max-dropped", "0.1%", code=1)
    assert "more than --max-dropped 0.1%" in done.stderr
    assert "no assistant turn (raw/talk/0 row" in done.stderr
    assert not (bucket / "standardized/talk/info.json").exists()
    lorry(*standardize, "--max-dropped", gone)
    assert lorry(*standardize, "--max-dropped", gone - 1, code=1).stderr.count("--max-dropped") == 1
    assert lorry(*standardize, "--max-dropped", "some", code=2)


def test_data_that_changed_is_made_anew_and_leftovers_go(lorry, raw, rows, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    standardize, pretokenize = verbs(bucket)
    lorry(*standardize)
    lorry(*pretokenize)
    source = tmp_path / "talk.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows[: SHARD + 10]))
    lorry("import-dataset", source, "--bucket", bucket, "--no-standardize", "--shard-examples", SHARD)
    lorry(*standardize)
    lorry(*pretokenize)
    for stage in ("standardized/talk", "model-ready/demo/talk"):
        made = {path.name for path in (bucket / stage).iterdir() if path.is_dir()}
        assert made == {"0", "1"}


def peak_rss(lorry, *args):
    """Bytes, as the kernel has them just before the end (what wait4 gives counts the parent in)."""
    process = lorry.start(*args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as status:
            seen = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
        peak = max([peak, *seen])
        time.sleep(0.002)
    assert process.returncode == 0
    return peak * 1024


def test_memory_stays_below_the_option_at_any_size(lorry, tmp_path):
    source = tmp_path / "big.jsonl"
    answer = "silver engine letter bridge paper " * 60
    with source.open("w") as file:
        for i in range(60_000):  # 130 MB, all in one shard
            row = {"messages": [turn("user", f"question {i}"), turn("assistant", answer)]}
            file.write(json.dumps(row) + "\n")
    bucket = tmp_path / "bucket"
    lorry("import-dataset", source, "--bucket", bucket, "--no-standardize")
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    names = ("--bucket", bucket, "--dataset", "big", "--memory", "96MB")
    assert peak_rss(lorry, "standardize", *names) < 96e6
    assert peak_rss(lorry, "pretokenize", *names, "--model", "demo") < 96e6


def test_a_signal_ends_it_with_130_and_nothing_that_counts(lorry, raw, alone, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(raw, bucket)
    standardize, pretokenize = verbs(bucket)
    lorry(*standardize)
    process = lorry.start(*pretokenize)
    while process.poll() is None and not (bucket / "model-ready").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130
    assert not (bucket / "model-ready/demo/talk/info.json").exists()
    lorry(*pretokenize)
    same(bucket, alone)
