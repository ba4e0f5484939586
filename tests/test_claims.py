"""Processes that want the same directory of a bucket: one at a time, the others wait or say for whom."""

import json
import signal
import time

import pytest
from conftest import EXAMPLE_DATA, EXAMPLE_MODEL, tree_digest
from s3 import S3, s3  # noqa: F401  (a fixture)


SET = ("--set", "name=Lorry", "--set", "author=us")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "talk.jsonl"
    turns = [{"role": "user", "content": "hello {{name}} " * 20}]
    turns.append({"role": "assistant", "content": "good day " * 40})
    path.write_text((json.dumps({"messages": turns}) + "\n") * 60_000)
    return path


def verb(source, bucket, name="Ada"):
    names = ("--bucket", bucket, "--dataset", "talk", "--set", f"name={name}")
    return ("import-dataset", source, *names, "--shard-examples", 2_000)


def stopped_at_work(lorry, *args, env=None, bucket):
    """A process that is stopped (SIGSTOP) while it holds a claim."""
    process = lorry.start(*args, env=env)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if any(bucket.glob("claims/*.json")) and any(bucket.glob("*/talk/0/state.json")):
            process.send_signal(signal.SIGSTOP)
            return process
        time.sleep(0.005)
    process.kill()
    pytest.skip("it was done before it could be stopped")


def whole(bucket):
    """Digests of all that counts: a process that sleeps keeps its temporary files."""
    return {k: v for k, v in tree_digest(bucket).items() if not k.startswith(".lorry-tmp/")}


def test_who_is_at_work_is_told_and_a_killed_one_holds_nothing(lorry, source, bucket):
    holder = stopped_at_work(lorry, *verb(source, bucket), bucket=bucket)
    refused = lorry(*verb(source, bucket, "Bob"), "--no-wait", code=1).stderr
    assert f"process {holder.pid}, lorry" in refused and "since 20" in refused
    claims = lorry.json("status", "--bucket", bucket, "--json")["at_work"]
    assert {(claim["pid"], claim["state"]) for claim in claims} == {(holder.pid, "held")}
    # The import standardizes on the way.
    assert sorted(claim["writes"] for claim in claims) in (["raw/talk", "standardized/talk"], ["standardized/talk"])
    holder.kill()
    holder.communicate()
    lorry(*verb(source, bucket), "--no-wait")
    assert not (bucket / "claims").exists()


def test_one_that_slept_through_a_take_over_writes_no_more(lorry, source, bucket, tmp_path):
    env = {"LORRY_CLAIM_SECONDS": "3"}
    sleeper = stopped_at_work(lorry, *verb(source, bucket), env=env, bucket=bucket)
    lorry(*verb(source, bucket, "Bob"), env=env)
    after = whole(bucket)
    sleeper.send_signal(signal.SIGCONT)
    said = sleeper.communicate(timeout=60)[1]
    assert sleeper.returncode == 1 and "taken over its work" in said
    assert whole(bucket) == after
    alone = tmp_path / "alone"
    lorry(*verb(source, alone, "Bob"))
    assert whole(bucket) == whole(alone)


# ---- whole runs ----------------------------------------------------------------------------------

TIMED = ("metrics.jsonl", "report.html", "info.json")  # rates and seconds of the steps


def run_verb(bucket, steps=8, **flags):
    names = ("--bucket", bucket, "--dataset", "identity", "--model", "demo")
    more = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ("run", EXAMPLE_DATA, EXAMPLE_MODEL, *names, *SET, "--max-steps", steps, *more)


def trained(bucket, run=""):
    """What a training left, but for times."""
    done = bucket / "done/demo" / ("identity" + run)
    return {k: v for k, v in tree_digest(done).items() if k not in TIMED}


@pytest.fixture(scope="module")
def undisturbed(lorry, tmp_path_factory):
    """The results of 8 steps, by learning rate."""
    results = {}
    for rate in ("1e-3", "2e-3"):
        bucket = tmp_path_factory.mktemp("alone")
        lorry(*run_verb(bucket, learning_rate=rate))
        results[rate] = trained(bucket)
    return results


def both(*processes):
    """Waits for processes and returns what they said on stderr."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    for process, words in zip(processes, said):
        assert process.returncode == 0, words
    return said


def test_two_runs_of_the_same_thing_leave_the_result_of_one(lorry, bucket, undisturbed):
    said = both(*(lorry.start(*run_verb(bucket, learning_rate="1e-3")) for _ in range(2)))
    assert trained(bucket) == undisturbed["1e-3"]
    assert sum("nothing to do" in words.split("train: ")[-1] for words in said) == 1, said
    assert not (bucket / "claims").exists()


def test_two_runs_of_the_same_thing_on_s3_leave_the_result_of_one(lorry, s3, undisturbed):
    env = s3.env()
    s3.make_bucket("claimed")
    both(*(lorry.start(*run_verb("s3://claimed", learning_rate="1e-3"), env=env) for _ in range(2)))
    assert trained(s3.directory / "claimed") == undisturbed["1e-3"]


def start_both(lorry, bucket, *more):
    rates = ("1e-3", "2e-3")
    return [lorry.start(*run_verb(bucket, learning_rate=rate), *more) for rate in rates]


def test_of_two_runs_with_other_options_the_second_leaves_the_result_of_the_first(lorry, bucket, undisturbed):
    processes = start_both(lorry, bucket)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1], said
    assert sum("holds the result of another run" in words for words in said) == 1, said
    first = 0 if processes[0].returncode == 0 else 1
    assert trained(bucket) == list(undisturbed.values())[first]


def test_of_two_runs_that_may_replace_the_second_trains_again(lorry, bucket, undisturbed):
    said = both(*start_both(lorry, bucket, "--replace"))
    assert trained(bucket) in undisturbed.values()
    assert all("trained: 8 steps" in words for words in said), said


def test_a_result_on_s3_is_replaced_when_that_is_said(lorry, s3, undisturbed):
    env = s3.env()
    s3.make_bucket("replaced")
    lorry(*run_verb("s3://replaced", learning_rate="1e-3"), env=env)
    refused = run_verb("s3://replaced", learning_rate="2e-3")
    said = lorry(*refused, env=env, code=1).stderr
    assert "learning_rate was 0.001, is 0.002" in said
    assert trained(s3.directory / "replaced") == undisturbed["1e-3"]
    lorry(*refused, "--replace", env=env)
    assert trained(s3.directory / "replaced") == undisturbed["2e-3"]
    assert not any((s3.directory / "replaced").rglob("*/result/*"))


def test_runs_with_names_lie_side_by_side(lorry, bucket, undisturbed, serve):
    lorry(*run_verb(bucket, learning_rate="1e-3"))
    lorry(*run_verb(bucket, learning_rate="2e-3", run_name="fast"))
    assert trained(bucket) == undisturbed["1e-3"]
    weights = "fused/model.safetensors"
    assert trained(bucket, "@fast")[weights] == undisturbed["2e-3"][weights]
    rows = lorry.json("status", "--bucket", bucket, "--json")["runs"]
    assert sorted(row.get("run_name") or "" for row in rows) == ["", "fast"]
    question = ("chat", "--bucket", bucket, "--prompt", "Who are you?", "--max-tokens", 16)
    assert lorry(*question, "--run-name", "fast").stdout != ""
    missing = lorry(*question, "--run-name", "slow", code=1).stderr
    assert "slow" in missing
    wrong = lorry(*run_verb(bucket, run_name="a/b"), code=2).stderr
    assert "--run-name" in wrong
    with serve("--bucket", bucket, "--run-name", "fast") as server:
        assert "demo/identity@fast" in [model["id"] for model in server.get("/v1/models")["data"]]


def test_a_data_set_has_no_run_in_its_name(lorry, bucket):
    said = lorry("import-dataset", EXAMPLE_DATA, "--bucket", bucket, "--dataset", "a@b", code=2).stderr
    assert "@" in said


def test_pairs_whose_names_join_alike_are_kept_apart(lorry, bucket):
    names = ("--bucket", bucket)
    for dataset in ("b/c", "c"):
        lorry("import-dataset", EXAMPLE_DATA, *names, "--dataset", dataset, *SET)
    for model in ("a", "a/b"):
        lorry("import-model", EXAMPLE_MODEL, *names, "--model", model)
    lorry("pretokenize", *names, "--model", "a", "--dataset", "b/c")
    before = tree_digest(bucket)
    said = lorry("pretokenize", *names, "--model", "a/b", "--dataset", "c", code=1).stderr
    assert "belongs to the model a and the data set b/c" in said
    assert tree_digest(bucket) == before


# ---- claims of others ----------------------------------------------------------------------------


def claim_of_another_host(bucket, **changes):
    """A claim as some other machine would have left it."""
    claim = {
        "format": 1, "state": "held", "verb": "standardize", "writes": "standardized/identity",
        "reads": ["raw/identity"], "key": "other", "rank": 0, "world_size": 1, "host": "far-away",
        "pid": 7, "machine": "m", "start": 5, "since": "2026-01-02 03:04:05", "since_ms": 1,
        "seconds": 2, "took": [], "lorry_version": "0.1.0",
    }  # fmt: skip
    (bucket / "claims").mkdir(parents=True)
    path = bucket / "claims" / "0123456789abcdef.json"
    path.write_text(json.dumps(claim | changes))
    return path


def import_identity(bucket):
    return ("import-dataset", EXAMPLE_DATA, "--bucket", bucket, "--dataset", "identity", *SET)


def test_another_hosts_claim_is_respected_until_it_runs_out(lorry, bucket):
    path = claim_of_another_host(bucket, seconds=600)
    refused = lorry(*import_identity(bucket), "--no-wait", code=1).stderr
    assert "far-away (process 7, lorry standardize), at work on standardized/identity since" in refused
    path.unlink()
    path.parent.rmdir()
    path = claim_of_another_host(bucket)
    lorry(*import_identity(bucket), env={"LORRY_CLAIM_SECONDS": "2"})
    assert (bucket / "standardized/identity/info.json").exists() and not path.exists()


def test_a_claim_elsewhere_in_the_bucket_is_in_nobodys_way(lorry, bucket):
    path = claim_of_another_host(bucket, writes="standardized/other", reads=[], seconds=600)
    lorry(*import_identity(bucket), "--no-wait")
    assert path.exists()


def test_waiting_ends_with_ctrl_c(lorry, bucket):
    claim_of_another_host(bucket, seconds=600)
    process = lorry.start(*import_identity(bucket))
    said = ""
    while "far-away" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_bucket_that_cannot_be_written_is_named_before_any_work(lorry, s3, tmp_path):
    env = s3.env()
    s3.make_bucket("kept")
    lorry(*import_identity("s3://kept"), "--no-standardize", env=env)
    before = tree_digest(s3.directory / "kept")
    read_only = ReadOnly(s3.directory)
    try:
        said = lorry("standardize", "--bucket", "s3://kept", env=read_only.env(), code=1).stderr
    finally:
        read_only.stop()
    assert "claims/" in said and len(said.strip().splitlines()) <= 4, said
    assert tree_digest(s3.directory / "kept") == before


class ReadOnly(S3):
    options = ("--readonly",)
