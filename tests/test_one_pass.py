"""import-dataset standardizes while it imports: the bucket is that of `import-dataset --no-standardize` and
`standardize`, which read the raw shards again, to the last byte."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import SEED, SOAK, tree_digest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"
KILLS = 40 if SOAK else 4
SHARD = 700  # rows


def command(*args):
    return list(map(str, (LORRY, *args)))


def run(*args, code=0):
    done = subprocess.run(command(*args), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def named(bucket):
    return "--bucket", bucket, "--dataset", "ds"


def importing(source, bucket):
    return "import-dataset", source, *named(bucket), "--shard-examples", SHARD


def in_two_passes(source, bucket, *flags, code=0):
    run(*importing(source, bucket), "--no-standardize")
    return run("standardize", *named(bucket), *flags, code=code)


def contents(bucket):
    """Every file but progress.json, which nothing removes after a kill between the last two writes."""
    trees = {stage: tree_digest(bucket / stage) for stage in ("raw", "standardized")}
    trees["raw"].pop("ds/progress.json", None)
    return trees


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(i, *more, **fields):
    user = {"role": "user", "content": f"question {i} " + "x" * (i % 50)}
    return {"id": i, "messages": [user, {"role": "assistant", "content": f"answer {i}", **fields}, *more]}


def filled(text):
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}


def plain(count=3000):
    return [turns(i) for i in range(count)]


def with_(place, row):
    rows = plain()
    rows[place] = row
    return rows


ALONE = {"id": 1, "messages": [{"role": "user", "content": "nobody answers"}]}
ROWS = {
    "plain": plain(),
    "few": plain(3),
    "dropped and noted": [turns(i) if i % 7 else ALONE | {"id": i} for i in range(2000)],
    "a column in the first shard's last rows": with_(600, turns(600, reasoning_content="because")),
    "a column in the last shard": with_(2999, turns(2999, reasoning_content="because")),
    "a column in the first rows": with_(5, turns(5, name="ann")),
    "other types in the last row": with_(2999, turns(0) | {"id": "text"}),
    "names to fill": [filled(f"{{{{who}}}} {i} {{{{what}}}}") for i in range(1500)],
    "instructions": [{"instruction": f"do {i}", "input": "it" * (i % 3), "output": f"done {i}"} for i in range(1500)],
    "texts": [{"text": f"text {i}"} for i in range(1500)],
    "a long row": with_(1234, turns(1234, {"role": "user", "content": "y" * 20_000_000})),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_one_pass_leaves_what_two_passes_leave(tmp_path, kind):
    source = write_lines(tmp_path / "in.jsonl", ROWS[kind])
    two, one = tmp_path / "two", tmp_path / "one"
    flags = ("--set", "what=that")
    said = in_two_passes(source, two, *flags)
    said_at_once = run(*importing(source, one), *flags)
    assert contents(one) == contents(two)
    for line in warnings(said):
        assert line in warnings(said_at_once)


def warnings(done):
    return [line for line in done.stderr.splitlines() if line.startswith("warning: ")]


def test_parquet_with_columns_that_play_no_part(tmp_path):
    table = pa.Table.from_pylist([{**turns(i), "score": i / 3, "tags": ["a"] * (i % 3)} for i in range(2500)])
    pa.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=400)
    in_two_passes(tmp_path / "in.parquet", tmp_path / "two")
    run(*importing(tmp_path / "in.parquet", tmp_path / "one"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


BAD = turns(2000) | {"messages": [{"role": "alien", "content": "x"}]}


@pytest.mark.parametrize("flags", [(), ("--skip-bad-rows", 1), ("--skip-bad-rows", 3), ("--max-dropped", 1)])
def test_rows_that_cannot_be_used_give_the_error_of_two_passes(tmp_path, flags):
    rows = plain()
    rows[1500] = rows[2000] = BAD
    rows[100] = rows[2800] = ALONE
    source = write_lines(tmp_path / "in.jsonl", rows)
    two, one = tmp_path / "two", tmp_path / "one"
    run(*importing(source, two), "--no-standardize", *flags[:2] if "bad" in "".join(map(str, flags)) else ())
    fails = "3" not in map(str, flags)
    said = run("standardize", *named(two), *flags, code=int(fails))
    said_at_once = run(*importing(source, one), *flags, code=int(fails))
    assert contents(one)["raw"] == contents(two)["raw"]
    if fails:
        assert said_at_once.stderr.splitlines()[-1] == said.stderr.splitlines()[-1]
        assert not (one / "standardized/ds/info.json").exists()
    else:
        assert contents(one) == contents(two)
        assert [line for line in warnings(said) if line not in warnings(said_at_once)] == []
    # With more patience the shards that are there are used, and the result is that of two passes.
    run("standardize", *named(one), "--skip-bad-rows", 9)
    run("standardize", *named(two), "--skip-bad-rows", 9)
    assert contents(one)["standardized"] == contents(two)["standardized"]


def test_columns_that_are_not_understood_are_told_of_after_the_raw_shards_are_whole(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [{"alpha": i, "beta": "x"} for i in range(1500)])
    said = in_two_passes(source, tmp_path / "two", code=1)
    said_at_once = run(*importing(source, tmp_path / "one"), code=1)
    assert said_at_once.stderr.splitlines()[-1] == said.stderr.splitlines()[-1]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A source that is long enough to be killed in the middle of, and its bucket in two passes."""
    directory = tmp_path_factory.mktemp("big")
    rows = [turns(i, {"role": "user", "content": "river stone window " * 40}, {"role": "assistant", "content": "y"})
            for i in range(12_000)]  # fmt: skip
    rows[6000] = turns(6000, name="ann")
    source = write_lines(directory / "in.jsonl", rows)
    in_two_passes(source, directory / "two")
    return source, directory / "two"


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(tmp_path, big):
    source, two = big
    start = time.monotonic()
    run(*importing(source, tmp_path / "measured"))
    seconds = time.monotonic() - start
    chance, bucket = random.Random(SEED), tmp_path / "one"
    for _ in range(KILLS):
        process = subprocess.Popen(command(*importing(source, bucket)), stderr=subprocess.DEVNULL)
        time.sleep(seconds * chance.uniform(0.02, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(*importing(source, bucket))
    assert contents(bucket) == contents(two)


def kill_when(path, *args):
    """SIGKILL as soon as the file is there."""
    process = subprocess.Popen(command(*args), stderr=subprocess.DEVNULL)
    while process.poll() is None and not path.exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()


def state(bucket, shard):
    return json.loads((bucket / f"standardized/ds/{shard}/state.json").read_text())["_lorry"]


@pytest.mark.parametrize("then", ["import-dataset", "standardize"])
def test_shards_of_a_killed_import_are_adopted(tmp_path, big, then):
    source, two = big
    bucket = tmp_path / "one"
    kill_when(bucket / "standardized/ds/3/state.json", *importing(source, bucket))
    assert "ahead" in state(bucket, 0)
    data = bucket / "standardized/ds/0/data-00000.arrow"
    before = data.stat()
    run(*importing(source, bucket), *(["--no-standardize"] if then == "standardize" else []))
    assert "ahead" in state(bucket, 0) or then == "import-dataset"
    if then == "standardize":
        run("standardize", *named(bucket))
    assert contents(bucket) == contents(two)
    # Row 6000 needs a column: the shards before it are made again.
    assert "name" in state(bucket, 0)["columns"]
    assert data.stat().st_ino != before.st_ino


@pytest.mark.parametrize("moment", ["raw/ds/info.json", "raw/ds/10/state.json", "standardized/ds/15/state.json"])
def test_killed_between_two_writes_it_goes_on_to_the_same_bytes(tmp_path, big, moment):
    source, two = big
    bucket = tmp_path / "one"
    kill_when(bucket / moment, *importing(source, bucket))
    run(*importing(source, bucket))
    assert contents(bucket) == contents(two)


def test_what_is_whole_is_not_made_again(tmp_path):
    source, bucket = write_lines(tmp_path / "in.jsonl", plain(9000)), tmp_path / "one"
    kill_when(bucket / "standardized/ds/2/state.json", *importing(source, bucket))
    files = sorted(bucket.glob("standardized/ds/[012]/data-*.arrow"))
    before = [file.stat() for file in files]
    run(*importing(source, bucket))
    assert [(s.st_ino, s.st_mtime_ns) for s in before] == [(s.st_ino, s.st_mtime_ns) for s in map(os.stat, files)]
    assert state(bucket, 0).keys() == {"key", "ledger", "rows", "columns", "needed", "filled"}


def test_shards_of_other_options_are_not_adopted(tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [filled(f"{{{{who}}}} {i}") for i in range(9000)])
    two, bucket = tmp_path / "two", tmp_path / "one"
    in_two_passes(source, two, "--set", "who=Ann")
    kill_when(bucket / "standardized/ds/2/state.json", *importing(source, bucket), "--set", "who=Bob")
    run(*importing(source, bucket), "--set", "who=Ann")
    assert contents(bucket) == contents(two)


def test_shards_of_another_source_are_not_adopted(tmp_path):
    bucket = tmp_path / "one"
    other = write_lines(tmp_path / "other.jsonl", [turns(-i) for i in range(9000)])
    kill_when(bucket / "standardized/ds/2/state.json", *importing(other, bucket))
    source = write_lines(tmp_path / "in.jsonl", plain(1600))
    run(*importing(source, bucket))
    in_two_passes(source, tmp_path / "two")
    assert contents(bucket) == contents(tmp_path / "two")


def test_a_bucket_of_two_passes_that_was_interrupted_goes_on(tmp_path, big):
    source, two = big
    bucket = tmp_path / "one"
    run(*importing(source, bucket), "--no-standardize")
    kill_when(bucket / "standardized/ds/4/state.json", "standardize", *named(bucket))
    run(*importing(source, bucket))
    assert contents(bucket) == contents(two)


def test_finished_standardized_shards_stay_until_the_raw_ones_are_whole(tmp_path):
    source, bucket = write_lines(tmp_path / "in.jsonl", plain(1500)), tmp_path / "one"
    run(*importing(source, bucket))
    before = contents(bucket)["standardized"]
    source.write_text(source.read_text() + '{"id": broken\n')
    run(*importing(source, bucket), code=1)
    assert contents(bucket)["standardized"] == before
    write_lines(source, plain(1501))
    run(*importing(source, bucket))
    in_two_passes(source, tmp_path / "two")
    assert contents(bucket) == contents(tmp_path / "two")


def test_nodes_that_share_an_import_leave_the_same(tmp_path, big):
    source, two = big
    bucket = tmp_path / "one"
    nodes = [subprocess.Popen(command(*importing(source, bucket), "--rank", rank, "--world-size", 2),
                              stderr=subprocess.DEVNULL) for rank in (0, 1)]  # fmt: skip
    assert [node.wait() for node in nodes] == [0, 0]
    assert contents(bucket) == contents(two)


def test_fresh_makes_all_of_it_again(tmp_path, big):
    source, two = big
    bucket = tmp_path / "one"
    kill_when(bucket / "standardized/ds/3/state.json", *importing(source, bucket))
    run(*importing(source, bucket), "--fresh")
    assert contents(bucket) == contents(two)
