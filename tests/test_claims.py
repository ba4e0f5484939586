"""Processes that want the same directory of a bucket: one at a time, the others wait or say for whom."""

import json
import signal
import time

import pytest
from conftest import tree_digest


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
    (claim,) = lorry.json("status", "--bucket", bucket, "--json")["at_work"]
    assert claim["pid"] == holder.pid and claim["state"] == "held"
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
