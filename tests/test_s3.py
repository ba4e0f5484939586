"""The whole path on a real S3 server, beside the same on a local directory, and with faults between:
errors, resets, cut bodies, wrong lengths, stalls. Credentials that fail and objects that are refused
give one clear error, and a re-run goes on."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import threading
import time

import fault_proxy as fault_proxies
import pytest
from conftest import EXAMPLE_MODEL, SEED, SOAK, import_example, on, tree_digest
from fault_proxy import KINDS, fault_proxy
from s3 import NamedObjects, s3  # noqa: F401  (s3 is a fixture)

FAILED = 1
# Faults of each kind; the long run of docs/benchmarks.md takes 500 of them.
FAULTS = 400 if SOAK else 40
QUICK = {"LORRY_HTTP_STALL_SECONDS": "1", "LORRY_HTTP_ATTEMPTS": "20"}
TRAIN = ("--max-steps", 6, "--batch-size", 1, "--learning-rate", "1e-3", "--save-steps", 2)


def stored(directory):
    """Digests of the objects of a bucket, without the server's own files."""
    return {
        name: digest
        for name, digest in tree_digest(directory).items()
        if not name.startswith(".sgwtmp") and not name.endswith(("metrics.jsonl", "report.html"))
    }


def on_s3(lorry, server, url=None, **more):
    """`lorry` with the server's address and keys in its environment."""

    def call(*args, **kwargs):
        return lorry(*args, **kwargs, env={**server.env(url), **more})

    return call


def write_rows(path, rows, seed=1):
    chance = random.Random(seed)
    words = "river stone window market garden silver engine letter bridge paper".split()
    with path.open("w") as file:
        for i in range(rows):
            turns = [
                {"role": role, "content": " ".join(chance.choices(words, k=12))}
                for role in ("user", "assistant")
            ]
            file.write(json.dumps({"id": i, "messages": turns}) + "\n")
    return path


def all_data_stages(call, source, bucket, shard_examples):
    names = ("--bucket", bucket, "--dataset", "d")
    call("import-dataset", source, *names, "--shard-examples", shard_examples, timeout=1800)
    call("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo", timeout=1800)
    call("pretokenize", *names, "--model", "demo", timeout=1800)


def test_the_whole_path_ends_with_the_bytes_of_a_local_bucket(lorry, s3, tmp_path, serve):
    remote, local = s3.make_bucket("whole"), tmp_path / "bucket"
    for call, bucket in ((on_s3(lorry, s3), remote), (lorry, local)):
        import_example(call, bucket)
        call("pretokenize", *on(bucket))
        call("train", *on(bucket), *TRAIN, timeout=600)
        assert "all as they were written" in call("verify", "--bucket", bucket).stderr
    assert stored(s3.directory / "whole") == stored(local)
    status = json.loads(on_s3(lorry, s3)("status", "--bucket", remote, "--json").stdout)
    assert status["runs"][0]["train"] == "done"


def test_a_prefix_keeps_buckets_apart(lorry, s3, tmp_path):
    s3.make_bucket("shared-bucket")
    call = on_s3(lorry, s3)
    for prefix in ("one", "two/deep"):
        import_example(call, f"s3://shared-bucket/{prefix}")
    one, two = (stored(s3.directory / "shared-bucket" / p) for p in ("one", "two/deep"))
    assert one and one == two


def rows_of(directory):
    """Digests of the data files, which depend on the rows alone, not on where they came from."""
    return {k: v for k, v in tree_digest(directory).items() if k.endswith(".arrow")}


def test_sources_lie_in_buckets_too(lorry, s3, tmp_path):
    import pyarrow.json
    import pyarrow.parquet

    s3.make_bucket("sources")
    folder = s3.directory / "sources" / "data"
    folder.mkdir()
    for part in range(3):
        write_rows(folder / f"part-{part}.jsonl", 500, seed=part)
    table = pyarrow.json.read_json(folder / "part-0.jsonl")
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=100)
    call = on_s3(lorry, s3)
    for name, source in (("lines", "*.jsonl"), ("columns", "rows.parquet")):
        bucket = s3.make_bucket(f"from-{name}")
        local = tmp_path / name
        call("import-dataset", f"s3://sources/data/{source}", "--bucket", bucket, "--dataset", "d")
        lorry("import-dataset", folder / source, "--bucket", local, "--dataset", "d")
        assert rows_of(s3.directory / f"from-{name}") == rows_of(local) != {}


def test_keys_with_empty_parts_are_names_like_others(lorry, tmp_path):
    import pyarrow.ipc

    row = '{"prompt": "%s", "completion": "b"}\n'
    keys = ["w/a.jsonl", "w//b.jsonl", "w/c//d.jsonl", "w//e//f.jsonl", "/g.jsonl"]
    objects = {key: (row % key).encode() for key in keys}

    def imported(source):
        bucket = tmp_path / source.replace("/", "_")
        done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", env=server.env())
        shard = pyarrow.ipc.open_stream(bucket / "raw/d/0/data-00000.arrow").read_all()
        return sorted(shard["prompt"].to_pylist()), done.stderr

    with NamedObjects(objects) as server:
        assert imported("s3://bkt/w/")[0] == sorted(keys[:4])
        assert imported("s3://bkt/w")[0] == sorted(keys[:4])
        assert imported("s3://bkt/w//b.jsonl")[0] == ["w//b.jsonl"]
        assert imported("s3://bkt/w//")[0] == ["w//b.jsonl", "w//e//f.jsonl"]
        assert imported("s3://bkt//g.jsonl")[0] == ["/g.jsonl"]
        assert imported("s3://bkt/w/**/*.jsonl")[0] == sorted(keys[:4])
        found, said = imported("s3://bkt/w/*.jsonl")
        assert found == ["w/a.jsonl"]
        assert "w//b.jsonl: left out, its name has an empty part" in said


def test_a_model_comes_from_a_bucket_too(lorry, s3, tmp_path):
    s3.make_bucket("sources")
    shutil.copytree(EXAMPLE_MODEL, s3.directory / "sources" / "model", dirs_exist_ok=True)
    bucket = s3.make_bucket("model-copy")
    call = on_s3(lorry, s3)
    call("import-model", "s3://sources/model", "--bucket", bucket, "--model", "demo")
    assert "all as they were written" in call("verify", "--bucket", bucket).stderr
    copied = tree_digest(s3.directory / "model-copy" / "models" / "demo")
    assert copied["model.safetensors"] == tree_digest(EXAMPLE_MODEL)["model.safetensors"]


def test_a_model_is_served_from_s3(lorry, s3):
    bucket = s3.make_bucket("served")
    call = on_s3(lorry, s3)
    call("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    said = call("chat", "--bucket", bucket, "--base", "--prompt", "Who are you?", timeout=120)
    assert said.stdout.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_every_kind_leave_the_bytes_alone(lorry, s3, tmp_path, kind):
    # A stall costs a second each.
    faults = FAULTS if kind != "stall" or SOAK else FAULTS // 4
    source, local = write_rows(tmp_path / "rows.jsonl", 20 * faults), tmp_path / "bucket"
    all_data_stages(lorry, source, local, 20)
    name = f"faults-{kind}"
    bucket = s3.make_bucket(name)
    rate = 0.25 if kind in ("500", "503", "429") else 0.4
    # What is cut or held back must have a body.
    matches = (lambda method, path: True) if rate < 0.3 else has_body
    with fault_proxy(s3.address, {kind: rate}, matches=matches, limit=2 * faults) as proxy:
        all_data_stages(on_s3(lorry, s3, proxy.url, **QUICK), source, bucket, 20)
        assert proxy.counts[kind] >= faults, dict(proxy.counts)
    assert stored(s3.directory / name) == stored(local)


def has_body(method, path):
    return method in ("GET", "PUT", "POST")


@pytest.mark.parametrize("kind", KINDS)
def test_faults_that_never_stop_give_one_clear_error(lorry, s3, tmp_path, kind):
    bucket = s3.make_bucket(f"always-{kind}")
    source = write_rows(tmp_path / "rows.jsonl", 200)
    on_s3(lorry, s3)("import-dataset", source, "--bucket", bucket, "--dataset", "d")
    few = {"LORRY_HTTP_STALL_SECONDS": "1", "LORRY_HTTP_ATTEMPTS": "3"}
    with fault_proxy(s3.address, {kind: 1.0}) as proxy:
        call = on_s3(lorry, s3, proxy.url, **few)
        done = call("standardize", "--bucket", bucket, "--dataset", "d", "--fresh", code=None)
    assert done.returncode == FAILED
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"s3://always-{kind}" in line and "tries" in line
    assert "testtest" not in done.stderr
    on_s3(lorry, s3)("standardize", "--bucket", bucket, "--dataset", "d")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_wrong_credentials_and_addresses_are_told_apart(lorry, s3, tmp_path, change, words):
    bucket = s3.make_bucket("guarded")
    source = write_rows(tmp_path / "rows.jsonl", 10)
    env = {"HOME": str(tmp_path), **s3.env(), **change}
    done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", env=env, code=None)
    assert done.returncode in (1, 2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line and "testtest" not in done.stderr
    assert not list((s3.directory / "guarded").rglob("info.json"))


def test_a_missing_bucket_is_named(lorry, s3):
    done = on_s3(lorry, s3)("status", "--bucket", "s3://nowhere-at-all", code=FAILED)
    assert "nowhere-at-all" in done.stderr


def test_an_object_that_may_not_be_read_is_named(lorry, s3, tmp_path):
    bucket = s3.make_bucket("forbidden")
    source = write_rows(tmp_path / "rows.jsonl", 100)
    names = ("--bucket", bucket, "--dataset", "d")
    on_s3(lorry, s3)("import-dataset", source, *names, "--shard-examples", 20)
    secret = "raw/d/3/data-00000.arrow"
    with refusing(s3, secret) as url:
        done = on_s3(lorry, s3, url)("standardize", *names, "--fresh", code=FAILED)
    assert secret in done.stderr and "403" in done.stderr or "denied" in done.stderr.lower()
    on_s3(lorry, s3)("standardize", *names)


def refusing(server, name):
    """A proxy that answers 403 for one object."""
    body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    fault_proxies.RESPONSES["403"] = (b"403 Forbidden", b"", body)

    @contextlib.contextmanager
    def running():
        matches = lambda method, path: name in path  # noqa: E731
        with fault_proxy(server.address, {"403": 1.0}, matches=matches) as proxy:
            yield proxy.url

    return running()


def test_credentials_that_are_revoked_in_mid_run_stop_it_and_a_rerun_goes_on(lorry, s3, tmp_path):
    bucket, local = s3.make_bucket("revoked"), tmp_path / "bucket"
    source = write_rows(tmp_path / "rows.jsonl", 2000)
    body = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
    fault_proxies.RESPONSES["revoked"] = (b"403 Forbidden", b"", body)
    with fault_proxy(s3.address, {}) as proxy:
        after = lambda method, path: proxy.requests > 150  # noqa: E731
        proxy.matches, proxy.rates = after, {"revoked": 1.0}
        call = on_s3(lorry, s3, proxy.url)
        flags = ("--bucket", bucket, "--dataset", "d", "--shard-examples", 20)
        done = call("import-dataset", source, *flags, code=FAILED)
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    assert not (s3.directory / "revoked" / "raw" / "d" / "info.json").exists()
    on_s3(lorry, s3)("import-dataset", source, *flags)
    lorry("import-dataset", source, "--bucket", local, *flags[2:])
    assert stored(s3.directory / "revoked") == stored(local)


def test_kills_on_s3_end_with_the_bytes_of_an_undisturbed_run(lorry, s3, tmp_path):
    source, local = write_rows(tmp_path / "rows.jsonl", 4000), tmp_path / "bucket"
    all_data_stages(lorry, source, local, 100)
    bucket, chance, hits = s3.make_bucket("killed"), random.Random(SEED + 5), 0
    names = ("--bucket", bucket, "--dataset", "d")
    call = on_s3(lorry, s3)
    call("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    for verb in (
        ("import-dataset", source, *names, "--shard-examples", 100),
        ("pretokenize", *names, "--model", "demo"),
    ):
        for _ in range(6):
            process = lorry.start(*verb, env=s3.env())
            time.sleep(chance.uniform(0.02, 1.0))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits += process.returncode == -signal.SIGKILL
        call(*verb)
    assert hits > 0
    assert stored(s3.directory / "killed") == stored(local)


def test_a_checkpoint_on_s3_carries_a_killed_training_on(lorry, s3, tmp_path):
    bucket, local = s3.make_bucket("resumed"), tmp_path / "bucket"
    for call, where in ((on_s3(lorry, s3), bucket), (lorry, local)):
        import_example(call, where)
        call("pretokenize", *on(where))
    lorry("train", *on(local), *TRAIN, timeout=600)
    process = lorry.start("train", *on(bucket), *TRAIN, env=s3.env(), stdout=subprocess.DEVNULL)
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    for line in process.stderr:
        if "step 4/6" in line:
            break
    process.kill()
    process.communicate()
    watchdog.cancel()
    done = on_s3(lorry, s3)("train", *on(bucket), *TRAIN, timeout=600)
    assert "going on from step" in done.stderr
    weights = "done/demo/identity/lora_model/adapter_model.safetensors"
    assert (s3.directory / "resumed" / weights).read_bytes() == (local / weights).read_bytes()
