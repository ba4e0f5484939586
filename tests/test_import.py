"""What an import promises whatever the machine: the same bytes for any number of threads, memory and
nodes, bounded memory, types of all rows, resume, and a shard that can be checked."""

import gzip
import json
import os
import random
import signal
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from conftest import peak_rss, tree_digest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"
datasets.disable_progress_bars()
TIMES = ("info.json",)  # holds the source's path and time of change: those differ from test to test


def importing(path, bucket, *flags):
    return [LORRY, "import-dataset", path, "--bucket", bucket, "--dataset", "ds", "--no-standardize", *flags]


def run(command, code=0):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def shards(bucket):
    return tree_digest(bucket / "raw")


def load(bucket, shard=0):
    return datasets.load_from_disk(str(bucket / "raw" / "ds" / str(shard)))


def write_lines(path, rows):
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    return path


def mixed_rows(count):
    chance = random.Random(7)
    for i in range(count):
        yield {
            "id": i,
            "score": i if i % 3 else i / 7,
            "messages": [{"role": "user", "content": "é" * chance.randrange(200)} for _ in range(i % 4)],
            "meta": {"k": i} if i % 5 else {"other": str(i)},
            "note": None if i % 2 else f"n{i}",
        }


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sources")
    rows = list(mixed_rows(30_000))
    lines = write_lines(directory / "in.jsonl", rows)
    table = pa.Table.from_pylist([{k: row[k] for k in ("id", "score", "messages", "note")} for row in rows])
    pa.parquet.write_table(table, directory / "in.parquet", row_group_size=2300)
    (directory / "in.csv").write_text("a,b\n" + "".join(f'{i},"x ""{i}""\ny"\n' for i in range(40_000)))
    (directory / "in.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes(), 1))
    return directory


KINDS = ["in.jsonl", "in.jsonl.gz", "in.csv", "in.parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_memory_and_nodes_give_the_same_bytes(tmp_path, sources, kind):
    flags = ("--shard-examples", 4100)
    run(importing(sources / kind, tmp_path / "one", *flags))
    want = shards(tmp_path / "one")
    for name, more in (("t", ("--threads", 5)), ("m", ("--memory", "17MB", "--threads", 1))):
        run(importing(sources / kind, tmp_path / name, *flags, *more))
        assert shards(tmp_path / name) == want
    for nodes in (2, 3):
        bucket = tmp_path / f"nodes{nodes}"
        for rank in reversed(range(nodes)):
            assert not (bucket / "raw" / "ds" / "info.json").exists()
            run(importing(sources / kind, bucket, *flags, "--rank", rank, "--world-size", nodes, "--no-wait"))
        assert shards(bucket) == want


def test_a_lost_nodes_part_is_taken_up_by_a_run_without_rank(tmp_path, sources):
    flags = ("--shard-examples", 4100)
    run(importing(sources / "in.jsonl", tmp_path / "one", *flags))
    lost = ("--rank", 1, "--world-size", 3, "--no-wait")
    done = run(importing(sources / "in.jsonl", tmp_path / "b", *flags, *lost))
    assert "5 of 8 shards" in done.stderr, done.stderr
    run(importing(sources / "in.jsonl", tmp_path / "b", *flags))
    assert shards(tmp_path / "b") == shards(tmp_path / "one")


def test_two_processes_with_the_same_work_do_not_harm_each_other(tmp_path, sources):
    flags = ("--shard-examples", 3000)
    run(importing(sources / "in.jsonl", tmp_path / "one", *flags))
    for _ in range(3):
        command = list(map(str, importing(sources / "in.jsonl", tmp_path / "b", *flags)))
        both = [subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        assert shards(tmp_path / "b") == shards(tmp_path / "one")
        (tmp_path / "b" / "raw" / "ds" / "info.json").unlink()


@pytest.mark.parametrize("last", [{"a": 1.5, "b": "x"}, {"a": "s", "b": "x"}, {"b": "x", "a": 1, "new": [1]}])
@pytest.mark.parametrize("where", ["row", "file"])
def test_types_of_the_last_row_count_as_those_of_the_first(tmp_path, last, where):
    rows = [{"a": i, "b": "y" * 40} for i in range(60_000)]
    source = tmp_path / "d"
    source.mkdir()
    write_lines(source / "0.jsonl", rows if where == "file" else [*rows, last])
    if where == "file":
        write_lines(source / "1.jsonl", [last])
    run(importing(source, tmp_path / "b", "--shard-examples", 25_000))
    read = [row for shard in range(3) for row in load(tmp_path / "b", shard)]
    assert len(read) == 60_001
    assert read[-1] == {"new": None, **last} if "new" in last else read[-1] == last
    assert read[59_999]["a"] == 59_999


def test_a_malformed_last_row_leaves_no_info(tmp_path):
    path = tmp_path / "in.jsonl"
    write_lines(path, ({"a": i, "b": "y" * 100} for i in range(50_000)))
    with path.open("a") as file:
        file.write('{"a": 1, "b": \n')
    done = run(importing(path, tmp_path / "b", "--shard-examples", 20_000), code=1)
    assert "in.jsonl: line 50001" in done.stderr
    assert not (tmp_path / "b" / "raw" / "ds" / "info.json").exists()
    run(importing(path, tmp_path / "b", "--skip-bad-rows", 1))
    info = json.loads((tmp_path / "b" / "raw" / "ds" / "info.json").read_text())
    assert info["rows"] == 50_000 and info["dropped"] == 1
    assert info["ledger"]["dropped"] == {"malformed": 1} and info["ledger"]["read"] == 50_001
    assert "line 50001" in info["dropped_rows"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_killed_at_any_time_ends_with_the_same_bytes(tmp_path, sources, kind):
    flags = ("--shard-examples", 2000)
    start = time.monotonic()
    run(importing(sources / kind, tmp_path / "one", *flags))
    whole = time.monotonic() - start
    chance = random.Random(kind)
    for i in range(8):
        memory = ("--memory", "17MB" if i % 2 else "512MB")  # blocks of other sizes
        process = subprocess.Popen(list(map(str, importing(sources / kind, tmp_path / "b", *flags, *memory))),
                                   stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.01, whole))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(importing(sources / kind, tmp_path / "b", *flags))
    assert shards(tmp_path / "b") == shards(tmp_path / "one")


def test_what_is_imported_again_with_fewer_rows_leaves_no_old_shards(tmp_path):
    path = tmp_path / "in.jsonl"
    write_lines(path, ({"a": i} for i in range(10_000)))
    run(importing(path, tmp_path / "b", "--shard-examples", 1000))
    write_lines(path, ({"a": i} for i in range(1500)))
    run(importing(path, tmp_path / "b", "--shard-examples", 1000))
    names = sorted(p.name for p in (tmp_path / "b" / "raw" / "ds").iterdir())
    assert names == ["0", "1", "info.json", "ledger.jsonl"]


def test_shards_record_what_verifies_them(tmp_path, sources):
    run(importing(sources / "in.jsonl", tmp_path / "b"))
    shard = tmp_path / "b" / "raw" / "ds" / "0"
    state = json.loads((shard / "state.json").read_text())
    assert len(state["_lorry"]["key"]) == 64 and state["_lorry"]["rows"] == 30_000
    for file in state["_data_files"]:
        assert file["size"] == (shard / file["filename"]).stat().st_size
        assert len(file["crc32c"]) == 8
    assert load(tmp_path / "b").num_rows == 30_000


def test_ten_thousand_small_files_come_in_order(tmp_path):
    source = tmp_path / "d"
    source.mkdir()
    for i in range(10_000):
        (source / f"{i:05}.jsonl").write_text('{"a": %d}\n{"a": -1}\n' % i)
    run(importing(source, tmp_path / "b"))
    assert load(tmp_path / "b")["a"][::2] == list(range(10_000))


def test_thousands_of_columns(tmp_path):
    rows = [{f"c{k}": i * k for k in range(4000)} for i in range(50)]
    write_lines(tmp_path / "in.jsonl", rows)
    run(importing(tmp_path / "in.jsonl", tmp_path / "b"))
    assert load(tmp_path / "b")[49] == rows[49]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    run(importing(tmp_path / "in.parquet", tmp_path / "p"))
    assert load(tmp_path / "p")[49] == rows[49]


# Peak memory, beside the ceiling that the stage was given (512 MB).


def long_lines(path, rows, size):
    with path.open("w") as file:
        for i in range(rows):
            file.write('{"id": %d, "text": "%s"}\n' % (i, chr(97 + i % 26) * size))


@pytest.mark.parametrize("rows,size", [(300_000, 1000), (400, 1 << 20), (4, 60 << 20)])
def test_memory_is_bounded_for_rows_of_any_length(tmp_path, rows, size):
    long_lines(tmp_path / "in.jsonl", rows, size)
    rss, code, stderr = peak_rss(importing(tmp_path / "in.jsonl", tmp_path / "b"))
    assert code == 0, stderr
    assert rss <= 512, rss
    assert "memory at most 512 MB" in stderr


@pytest.mark.parametrize("how", ["long", "dictionary", "one group", "wide"])
def test_memory_is_bounded_for_parquet_of_any_shape(tmp_path, how):
    path = tmp_path / "in.parquet"
    chance = random.Random(3)
    if how == "long":
        table = pa.table({"t": [chance.randbytes(500_000).hex() for _ in range(400)]})
        pa.parquet.write_table(table, path, write_batch_size=1)  # a page is held whole
    elif how == "dictionary":  # 3 GB of text behind two values
        values = pa.array(["x" * 300_000, "y" * 300_000])
        table = pa.table({"t": pa.DictionaryArray.from_arrays(pa.array([0, 1] * 1500, pa.int32()), values)})
        pa.parquet.write_table(table, path)
    elif how == "one group":
        words = [chance.randbytes(300).hex() for _ in range(5000)]
        table = pa.table({"t": [chance.choice(words) + str(i) for i in range(800_000)]})
        pa.parquet.write_table(table, path, row_group_size=10_000_000, use_dictionary=False)
    else:
        table = pa.table({f"c{i}": pa.array(range(2000), pa.int64()) for i in range(3000)})
        pa.parquet.write_table(table, path)
    del table
    rss, code, stderr = peak_rss(importing(path, tmp_path / "b", "--shard-examples", 2_000_000))
    assert code == 0, stderr
    assert rss <= 512, rss


def test_a_gz_bomb_ends_with_a_clear_error_in_bounded_memory(tmp_path):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = squeeze.compress(b'{"a": "') + b"".join(squeeze.compress(b"0" * (1 << 24)) for _ in range(128))
    (tmp_path / "bomb.jsonl.gz").write_bytes(bomb + squeeze.flush())
    rss, code, stderr = peak_rss(importing(tmp_path / "bomb.jsonl.gz", tmp_path / "b"))
    assert code == 1 and "bomb.jsonl.gz: line 1: a row of more than" in stderr, stderr
    assert rss <= 512, rss
