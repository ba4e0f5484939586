"""What is read of a directory: each file once, and nothing that another program keeps there."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"


def run_import(tmp_path, source, *flags):
    return subprocess.run([LORRY, "import-dataset", source, "--bucket", tmp_path / "b", "--dataset",
                           "ds", *flags], capture_output=True, text=True)


def texts(tmp_path, source, *flags):
    """The rows' `text`, and what was said."""
    done = run_import(tmp_path, source, *flags)
    assert done.returncode == 0, done.stderr
    base = tmp_path / "b" / "raw" / "ds"
    rows = []
    for shard in range(json.loads((base / "info.json").read_text())["count"] + 1):
        for file in json.loads((base / str(shard) / "state.json").read_text())["_data_files"]:
            with pa.ipc.open_stream(str(base / str(shard) / file["filename"])) as stream:
                rows += [row["text"] for row in stream.read_all().to_pylist()]
    return rows, done.stderr


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


@pytest.mark.parametrize("glob, flags", [("", []), ("**/*.jsonl", []), ("", ["--split", "train"])])
def test_a_link_to_a_directory_above_does_not_multiply_the_rows(tmp_path, glob, flags):
    write(tmp_path / "d" / "a.jsonl", "a")
    write(tmp_path / "d" / "deep" / "b.jsonl", "b")
    (tmp_path / "d" / "self").symlink_to(".")
    (tmp_path / "d" / "deep" / "up").symlink_to("..")
    (tmp_path / "d" / "deep" / "round").symlink_to(tmp_path / "d" / "deep")
    assert texts(tmp_path, tmp_path / "d" / glob, *flags)[0] == ["a", "b"]


def test_a_file_counts_once_whatever_links_to_it(tmp_path):
    write(tmp_path / "d" / "b.jsonl", "b")
    (tmp_path / "d" / "a.jsonl").symlink_to("b.jsonl")
    os.link(tmp_path / "d" / "b.jsonl", tmp_path / "d" / "c.jsonl")
    write(tmp_path / "elsewhere" / "x.jsonl", "x")
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "elsewhere")
    rows, said = texts(tmp_path, tmp_path / "d")
    assert rows == ["b", "x"]
    assert "a.jsonl: left out, the same file as" in said and "c.jsonl: left out" in said


def test_links_to_nothing_are_said(tmp_path):
    write(tmp_path / "d" / "a.jsonl", "a")
    (tmp_path / "d" / "b.jsonl").symlink_to("../.git/annex/objects/b")
    rows, said = texts(tmp_path, tmp_path / "d")
    assert rows == ["a"] and "b.jsonl: left out, it links to nothing" in said


FOREIGN = {
    "MosaicML": ["index.json", "shard.00000.mds"],
    "MosaicML streaming": ["train/index.json", "train/shard.00000.mds.zstd"],
    "LitData": ["index.json", "chunk-0-0.bin"],
    "Delta Lake": ["_delta_log/00000000000000000000.json", "part-0.parquet"],
    "Iceberg": ["metadata/v1.metadata.json", "metadata/snap-1.avro", "data/0.parquet"],
    "Lance": ["_versions/1.manifest", "data/0.lance", "notes.json"],
    "cache of the Hugging Face Hub": ["refs/main", "blobs/ab", "snapshots/cd/train.jsonl"],
    "not a whole tar archive": ["0.tar", "1.tar"],
}


@pytest.mark.parametrize("flags", [[], ["--split", "train"]])
@pytest.mark.parametrize("name", FOREIGN)
def test_directories_of_other_programs_are_named(tmp_path, name, flags):
    if flags and "archive" in name:
        pytest.skip("answered by the rules of the Hub")
    for file in FOREIGN[name]:
        write(tmp_path / "d" / file, "x")
    done = run_import(tmp_path, tmp_path / "d", *flags)
    assert done.returncode != 0 and name in done.stderr, done.stderr
    assert not (tmp_path / "b" / "raw").exists()


def test_results_of_map_beside_the_data_are_left_out(tmp_path):
    for name, row in [("data-00000.arrow", "x"), ("cache-0123456789abcdef.arrow", "again")]:
        table = pa.table({"text": [row]})
        (tmp_path / "d").mkdir(exist_ok=True)
        with pa.ipc.new_stream(tmp_path / "d" / name, table.schema) as writer:
            writer.write_table(table)
    rows, said = texts(tmp_path, tmp_path / "d")
    assert rows == ["x"] and "a cache of `datasets`" in said


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.jsonl.gz", "d.parquet", "d.arrow"])
@pytest.mark.parametrize("content, words", [
    (POINTER, "Git LFS pointer, not the data: run git lfs pull"),
    (b"/annex/objects/SHA256E-s1--ab.jsonl\n", "git annex get"),
    (PAGE, "is an HTML page"),
])
def test_what_stands_for_data_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    done = run_import(tmp_path, tmp_path / name)
    assert done.returncode != 0 and words in done.stderr and name in done.stderr, done.stderr


@pytest.mark.parametrize("name, what", [("d.json", "Parquet"), ("d.csv", "ZIP"), ("d.parquet", "Arrow"),
                                        ("d.arrow", "Parquet")])
def test_files_named_as_another_format_are_told(tmp_path, name, what):
    table = pa.table({"text": ["x"]})
    if what == "Parquet":
        pa.parquet.write_table(table, tmp_path / name)
    elif what == "Arrow":
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    else:
        (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    done = run_import(tmp_path, tmp_path / name)
    assert done.returncode != 0 and f"{what} " in done.stderr and "its name says" in done.stderr


CHAT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
OTHER_ROWS = [({"instruction": "i", "input": "", "output": "o"}, CHAT),
              ({"text": "t"}, {"prompt": "p", "completion": "c"}),
              ({"question": "p", "answer": "c"}, CHAT)]


@pytest.mark.parametrize("rows", OTHER_ROWS)
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_rows_of_two_formats_stop_the_import(tmp_path, rows, kind):
    (tmp_path / "d").mkdir()
    for name, row in zip("xy", rows):
        if kind == "json":
            (tmp_path / "d" / f"{name}.json").write_text(json.dumps([row]))
        else:
            pa.parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "d" / f"{name}.parquet")
    done = run_import(tmp_path, tmp_path / "d")
    assert done.returncode != 0 and "rows of two formats" in done.stderr, done.stderr


def test_columns_beside_a_conversation_are_no_other_format(tmp_path):
    rows = [CHAT | {"text": "t"}, {"conversations": [], "text": "t"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_import(tmp_path, tmp_path / "in.jsonl")
    assert done.returncode == 0 and "1 dropped: empty conversation" in done.stderr + done.stdout
