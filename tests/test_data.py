"""Import and standardisation beside the real `datasets`: every row of every format."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
import pyarrow.csv
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"
SHARED = Path(os.environ.get("LORRY_SHARED", ROOT.parent / "shared")) / "data"
datasets.disable_progress_bars()


def lorry(*args, check=True):
    done = subprocess.run([LORRY, *map(str, args)], capture_output=True, text=True)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def imported(bucket, source, *flags, name="ds"):
    sources = source if isinstance(source, list) else [source]
    lorry("import-dataset", *sources, "--bucket", bucket, "--dataset", name, *flags)
    return rows_of(bucket, name)


def rows_of(bucket, name="ds", stage="raw"):
    base = Path(bucket) / stage / name
    count = json.loads((base / "info.json").read_text())["count"]
    rows = []
    for shard in range(count + 1):
        rows += list(datasets.load_from_disk(str(base / str(shard))))
    return rows


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


PLAIN = [
    {
        "prompt": f"question {i} é \u4f60 \" \\ \n \U0001f600",
        "completion": None if i % 7 == 3 else "answer " * (i % 9),
        "n": i,
        "x": i / 3 if i % 2 else None,
        "ok": i % 3 == 0,
        "tags": [str(k) for k in range(i % 4)],
    }
    for i in range(3000)
]


def compress(path, how):
    if how == "":
        return path
    packed = path.with_name(path.name + how)
    if how == ".gz":
        packed.write_bytes(gzip.compress(path.read_bytes()))
    else:
        packed.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    return packed


@pytest.mark.parametrize("how", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "kind", [".jsonl", ".json", ".pretty.json", ".csv", ".tsv", ".parquet", ".arrow", ".ipc"]
)
def test_rows_are_the_source_s(tmp_path, kind, how):
    path = tmp_path / f"in{kind}"
    rows = PLAIN
    table = pa.Table.from_pylist(rows)
    if kind == ".jsonl":
        write_lines(path, rows)
    elif kind == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False))
    elif kind == ".pretty.json":
        path.write_text(json.dumps(rows, indent=2))
    elif kind in (".csv", ".tsv"):
        frame = table.drop_columns(["tags"]).to_pandas()
        frame.to_csv(path, sep="," if kind == ".csv" else "\t", index=False)
        cache = str(tmp_path / "cache")
        rows = list(datasets.load_dataset("csv", data_files=str(path), split="train",
                                          sep="," if kind == ".csv" else "\t", cache_dir=cache))
        for row in rows:  # True is spelled otherwise in JSON, so it stays text
            row["ok"] = str(row["ok"])
    elif kind == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=700)
    elif kind == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=333)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=333)
    source = compress(path, how)
    got = imported(tmp_path / "b", source, "--no-standardize", "--shard-examples", 1100)
    assert got == rows


NASTY = {
    "mixed": [{"a": 1}, {"a": "5"}, {"a": "x"}, {"a": None}, {"a": {"q": [1, None]}}],
    "numbers": [{"a": 1}, {"a": 1.5}, {"b": 2}, {"a": 2**63}, {"a": -(2**63)}],
    "late": [{"a": None}] * 50 + [{"z": [None, {"k": []}]}, {"z": [{"k": ["s"]}]}],
    "keys": [{"m": [{"x": 1}, {"y": "é"}]}, {"m": []}, {"m": None}, {"m": [{"x": 1, "y": None}]}],
    "empty": [{"a": [], "b": {}, "c": ""}, {"a": None, "b": {}, "c": "\u0000\u2028"}],
    "nested": [{"s": {"t": {"u": [[1], [], [2, 3]]}}}, {"s": {"t": {"u": []}}}],
    "dates": [{"a": "2024-01-01 00:00:00"}, {"a": "2024-01-02"}],
    "lists": [{"a": [1, "x", None]}, {"a": [2.5]}, {"a": [True]}],
}


@pytest.mark.parametrize("name", NASTY)
def test_values_come_out_as_they_went_in(tmp_path, name):
    rows = NASTY[name]
    write_lines(tmp_path / "in.jsonl", rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    want = [{key: row.get(key) for key in columns} for row in rows]
    assert imported(tmp_path / "b", tmp_path / "in.jsonl", "--no-standardize") == want


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "identity.json",
                                  "glaive_toolcall_en_demo.json", "v1_sft_demo.jsonl",
                                  "reason_tool_use_demo_50.jsonl"])
def test_samples_are_those_of_datasets(tmp_path, name):
    path = SHARED / "llama-factory" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    reference = datasets.load_dataset("json", data_files=str(path), split="train",
                                      cache_dir=str(tmp_path / "cache"))
    assert imported(tmp_path / "b", path) == list(reference)
    standard = rows_of(tmp_path / "b", stage="standardized")
    assert len(standard) == len(reference)
    for row in standard:
        assert {m["role"] for m in row["conversations"]} <= {"system", "user", "assistant", "tool"}
        assert any(m["role"] == "assistant" for m in row["conversations"])
        for message in row["conversations"]:
            assert message["content"] or message.get("tool_calls")
            for call in json.loads(message.get("tool_calls") or "[]"):
                assert isinstance(call["function"]["arguments"], dict)


def test_opens_what_save_to_disk_wrote(tmp_path):
    saved = datasets.Dataset.from_list(PLAIN)
    saved.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert imported(tmp_path / "b", tmp_path / "saved", "--no-standardize") == PLAIN


def test_directories_and_globs_are_read_by_name(tmp_path):
    for part in range(3):
        (tmp_path / "d" / str(part)).mkdir(parents=True)
        write_lines(tmp_path / "d" / str(part) / "p.jsonl", PLAIN[part * 10 : part * 10 + 10])
    (tmp_path / "d" / "README.md").write_text("no data")
    assert imported(tmp_path / "b", tmp_path / "d", "--no-standardize") == PLAIN[:30]
    assert imported(tmp_path / "b2", f"{tmp_path}/**/p.jsonl", "--no-standardize") == PLAIN[:30]
    files = [tmp_path / "d" / "2" / "p.jsonl", tmp_path / "d" / "0" / "p.jsonl"]
    assert imported(tmp_path / "b3", files, "--no-standardize") == PLAIN[20:30] + PLAIN[:10]


def standard(tmp_path, rows, *flags):
    write_lines(tmp_path / "in.jsonl", rows)
    imported(tmp_path / "b", tmp_path / "in.jsonl", *flags)
    return rows_of(tmp_path / "b", stage="standardized")


def turn(role, content):
    return {"role": role, "content": content}


def test_formats_are_recognised(tmp_path):
    chat = [turn("user", "q"), turn("assistant", "a")]
    cases = {
        "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "messages": {"messages": chat},
        "alpaca": {"instruction": "q", "input": "", "output": "a"},
        "pair": {"prompt": "q", "completion": "a"},
        "lists": {"prompt": chat[:1], "completion": chat[1:]},
        "question": {"question": "q", "answer": "a"},
    }
    for name, row in cases.items():
        (tmp_path / name).mkdir()
        assert standard(tmp_path / name, [row]) == [{"conversations": chat}], name
    (tmp_path / "text").mkdir()
    assert standard(tmp_path / "text", [{"text": "t", "id": 1}]) == [{"text": "t"}]
    (tmp_path / "columns").mkdir()
    got = standard(tmp_path / "columns", [{"x": "q", "y": "a"}], "--columns", "prompt=x,completion=y")
    assert got == [{"conversations": chat}]


def test_alpaca_joins_instruction_and_input_and_keeps_the_system(tmp_path):
    got = standard(tmp_path, [{"instruction": "i", "input": "x", "output": "o", "system": "s",
                               "history": [["h", "r"]]}])
    want = [turn("system", "s"), turn("user", "h"), turn("assistant", "r"), turn("user", "i\nx"),
            turn("assistant", "o")]
    assert got == [{"conversations": want}]


def test_placeholders_are_filled(tmp_path):
    got = standard(tmp_path, [{"prompt": "{{ name }}?", "completion": "{{name}} by {{author}}"}],
                   "--set", "name=Lorry")
    assert got == [{"conversations": [turn("user", "Lorry?"), turn("assistant", "Lorry by {{author}}")]}]


def test_rows_without_an_answer_are_dropped_and_counted(tmp_path):
    rows = [{"messages": []}, {"messages": [turn("user", "q")]},
            {"messages": [turn("user", "q"), turn("assistant", "a")]}]
    assert len(standard(tmp_path, rows)) == 1
    info = json.loads((tmp_path / "b/standardized/ds/info.json").read_text())
    assert info["dropped"] == {"empty conversation": 1, "no assistant turn": 1}


def test_columns_that_are_left_out_are_said(tmp_path):
    row = {"id": 7, "messages": [{**turn("user", "q"), "score": 0}, turn("assistant", "a")], "lang": "en"}
    write_lines(tmp_path / "in.jsonl", [row])
    done = lorry("import-dataset", tmp_path / "in.jsonl", "--bucket", tmp_path / "b", "--dataset", "ds")
    assert "id, messages[].score, lang" in done.stderr
    info = json.loads((tmp_path / "b/standardized/ds/info.json").read_text())
    assert info["dropped_columns"] == ["id", "messages[].score", "lang"]


def info_of(tmp_path):
    return json.loads((tmp_path / "b/standardized/ds/info.json").read_text())


MARKS = [("weight", 0, 1), ("weight", 0.0, 1.0), ("weight", "0", "1"), ("train", False, True),
         ("training", False, True), ("trainable", False, None), ("loss", False, True), ("loss_mask", 0, 1),
         ("masked", True, False)]


@pytest.mark.parametrize("key,no,yes", MARKS)
def test_answers_that_are_marked_as_not_to_be_learned_are_context(tmp_path, key, no, yes):
    chat = [turn("user", "q"), {**turn("assistant", "bad"), key: no}, turn("user", "r"),
            {**turn("assistant", "good"), key: yes}]
    rows = standard(tmp_path, [{"messages": chat}, {"messages": [turn("user", "q"), {**turn("assistant", "a"), key: no}]}])
    assert [[m["weight"] for m in row["conversations"]] for row in rows] == [[None, "0", None, None]]
    info = info_of(tmp_path)
    assert info["ledger"]["noted"] == {"answers marked as not to be learned": 1}
    assert info["dropped"] == {"every answer marked as not to be learned": 1}
    assert info["dropped_columns"] == []


def test_marks_of_sharegpt_turns_count_too(tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f"}', "weight": 0},
             {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a", "weight": None}]
    (row,) = standard(tmp_path, [{"conversations": turns}])
    assert [m["weight"] for m in row["conversations"]] == [None, "0", None, None]


@pytest.mark.parametrize("mark", [{"weight": 0.5}, {"train": "perhaps"},
                                  {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}])
def test_marks_that_are_not_understood_stop_the_import(tmp_path, mark):
    chat = [turn("user", "q"), {**turn("assistant", "a"), **mark}]
    write_lines(tmp_path / "in.jsonl", [{"messages": chat}])
    error = failure(tmp_path, tmp_path / "in.jsonl")
    assert "row 0" in error and f"turn 1: {next(iter(mark))}: " in error


@pytest.mark.parametrize("row", [{"prompt": "q", "completion": "a"},
                                 {"messages": [turn("user", "q"), turn("assistant", "a")]},
                                 {"instruction": "q", "output": "a"}])
@pytest.mark.parametrize("column,no,yes,reason", [
    ("label", False, True, "label false"), ("label", "False", "True", "label false"), ("weight", 0, 1, "weight 0")])
def test_rows_that_are_marked_as_bad_are_left_out_and_counted(tmp_path, row, column, no, yes, reason):
    rows = [{**row, column: yes}, {**row, column: no}, {**row, column: None}]
    assert len(standard(tmp_path, rows)) == 2
    assert info_of(tmp_path)["dropped"] == {reason: 1}


def test_a_label_that_is_a_class_or_a_weight_of_parts_leaves_out_nothing(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "label": n, "weight": n + 0.5} for n in (0, 1)]
    assert len(standard(tmp_path, rows)) == 2
    assert info_of(tmp_path)["dropped_columns"] == ["label", "weight"]


def test_an_empty_answer_is_not_learned_and_rows_of_nothing_else_are_dropped(tmp_path):
    empty = [{"messages": [turn("user", "q"), turn("assistant", content)]} for content in ("", None, " \n")]
    mixed = [turn("user", "q"), turn("assistant", ""), turn("user", "r"), turn("assistant", "a")]
    thought = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    rows = standard(tmp_path, [*empty, {"messages": mixed}, {"messages": [turn("user", "q"), thought]},
                               {"messages": [turn("user", "q"), called]}])
    assert [[m["weight"] for m in row["conversations"]] for row in rows] == [
        [None, "0", None, None], [None, None], [None, None]]
    info = info_of(tmp_path)
    assert info["dropped"] == {"empty answer": 3}
    assert info["ledger"]["noted"] == {"empty answers, not learned": 1}


def test_a_completion_of_spaces_is_empty(tmp_path):
    rows = [{"prompt": "q", "completion": " \n"}, {"prompt": "q", "completion": "a"}]
    assert len(standard(tmp_path, rows)) == 1
    assert info_of(tmp_path)["dropped"] == {"empty completion": 1}


def test_values_that_no_row_asks_for_are_said_for_many_shards_too(tmp_path):
    rows = [{"text": "{{a}}"}] + [{"text": f"t{i}"} for i in range(50)] + [{"text": "{{b}}"}]
    write_lines(tmp_path / "in.jsonl", rows)
    done = lorry("import-dataset", tmp_path / "in.jsonl", "--bucket", tmp_path / "b", "--dataset", "ds",
                 "--shard-examples", 9, "--set", "a=1", "--set", "b=2", "--set", "c=3")
    assert "--set c: no row holds" in done.stderr
    assert "--set a" not in done.stderr and "--set b" not in done.stderr


def failure(tmp_path, source, *flags):
    done = lorry("import-dataset", source, "--bucket", tmp_path / "b", "--dataset", "ds", *flags,
                 check=False)
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "b/raw/ds/info.json").exists() or "standardized" in done.stderr or \
        "raw/" in done.stderr or "column" in done.stderr
    return done.stderr


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n' * 16 + '{"text": \n' + '{"text": "a"}\n')
    assert "in.jsonl: line 17:" in failure(tmp_path, path)
    assert not (tmp_path / "b/raw/ds").exists()
    rows = imported(tmp_path / "b", path, "--skip-bad-rows", 1)
    assert len(rows) == 17


@pytest.mark.parametrize("name,content", [
    ("empty.jsonl", b""), ("empty.json", b"[]"), ("cut.json", b'[{"text": "a"}, {"te'),
    ("bytes.jsonl", b'{"text": "\xff\xfe"}\n'), ("scalar.jsonl", b"3\n"), ("x.xyz", b"a"),
    ("cut.parquet", b"PAR1abc"), ("cut.arrow", b"ARROW1\0\0abc"), ("empty.csv", b""),
    ("wide.csv", b"a,b\n1,2\n1,2,3\n"), ("open.csv", b'a,b\n1,"2\n'), ("none.jsonl.gz", b"\x1f\x8b\x08\0cut"),
    ("other.jsonl", b'{"color": "red"}\n'),
    ("deep.jsonl", b'{"n": 123456789012345678901, "text": ' + b"[" * 200000 + b"]" * 200000 + b"}\n"),
])
def test_bad_files_get_one_clear_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = failure(tmp_path, tmp_path / name)
    assert len([line for line in message.splitlines() if line.startswith("error")]) == 1, message


def refused(tmp_path, source, *words):
    """One error line that holds `words`, exit code 1, nothing in the bucket."""
    done = lorry("import-dataset", source, "--bucket", tmp_path / "b", "--dataset", "ds", check=False)
    assert done.returncode == 1, (source, done.returncode, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), done.stderr
    assert [p for p in (tmp_path / "b").rglob("*") if p.is_file()] == []


def write_kind(path, rows):
    """`rows` in the format that the name of `path` says, packed if it says so."""
    plain = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    table = pa.Table.from_pylist(rows, schema=pa.schema([("text", pa.string())]))
    kind = plain.suffix
    if kind == ".jsonl":
        write_lines(plain, rows)
    elif kind == ".json":
        plain.write_text(json.dumps(rows))
    elif kind == ".csv":
        plain.write_text("text,b\n" + "".join(f"{row['text']},b\n" for row in rows))
    elif kind == ".parquet":
        pa.parquet.write_table(table, plain)
    else:
        new = pa.ipc.new_stream if kind == ".arrow" else pa.ipc.new_file
        with new(plain, table.schema) as writer:
            writer.write_table(table)
    if plain != path:
        compress(plain, path.suffix)
        plain.unlink()


KINDS = [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".ipc"]
ROWS = [{"text": f"row {i}"} for i in range(2000)]


@pytest.mark.parametrize("how", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_named_and_leave_nothing(tmp_path, kind, how):
    whole = tmp_path / f"whole{kind}{how}"
    write_kind(whole, ROWS)
    data = whole.read_bytes()
    damaged = {"none": b"", "short": data[:7], "cut": data[: len(data) // 2 + 3],
               "noise": random.Random(1).randbytes(4000)}
    if kind in (".jsonl", ".csv") and not how:
        del damaged["cut"]  # whole lines
        if kind == ".csv":
            del damaged["short"]
    for name, content in damaged.items():
        path = tmp_path / f"{name}{kind}{how}"
        path.write_bytes(content)
        refused(tmp_path, path, path.name)


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet", ".arrow"])
def test_one_damaged_file_of_a_directory_is_named(tmp_path, kind):
    (tmp_path / "d").mkdir()
    for name in "ac":
        write_kind(tmp_path / "d" / f"{name}{kind}", ROWS[:10])
    (tmp_path / "d" / f"b{kind}").write_bytes(b"\x01garbage{")
    refused(tmp_path, tmp_path / "d", f"b{kind}")


@pytest.mark.parametrize("how", ["", ".gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_without_rows_are_named(tmp_path, kind, how):
    (tmp_path / "d").mkdir()
    for name in "ab":
        write_kind(tmp_path / "d" / f"{name}{kind}{how}", [])
    refused(tmp_path, tmp_path / "d" / f"a{kind}{how}", f"a{kind}{how}", "no rows")
    refused(tmp_path, tmp_path / "d", f"a{kind}{how}", "no rows")
    write_kind(tmp_path / "d" / f"b{kind}{how}", ROWS[:5])
    assert imported(tmp_path / "b", tmp_path / "d", "--no-standardize")[4]["text"] == "row 4"


def test_the_program_parses_with_the_simdjson_it_was_compiled_for():
    env = {**os.environ, "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}
    done = subprocess.run([LORRY, "--help"], capture_output=True, text=True, env=env)
    bound = [line for line in done.stderr.splitlines()
             if "simdjson" in line.split("symbol")[-1] and f"file {LORRY} [" in line]
    assert bound and all("libsimdjson.so" in line.split(" to ")[1] for line in bound), bound


@pytest.mark.parametrize("name,begin", [("a.jsonl", b""), ("b.jsonl", b'{"text": "'), ("c.json", b"["),
                                        ("d.json", b'[{"text": "'), ("e.csv", b"text,b\n"),
                                        ("f.csv", b'text,b\n1,"')])
@pytest.mark.parametrize("fill", [b"\0", b" "])
def test_a_file_of_one_endless_row_ends_in_bounded_memory(tmp_path, name, begin, fill):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(begin) + gzip.compress(fill * (16 << 20), 1) * 64)
    bounded = ["prlimit", f"--as={1 << 30}", LORRY]
    done = subprocess.run([*bounded, "import-dataset", path, "--bucket", tmp_path / "b", "--dataset", "d"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and f"{name}.gz: line" in done.stderr, done.stderr


def test_spaces_around_an_array_may_be_longer_than_a_block(tmp_path):
    space = " " * (5 << 20)
    (tmp_path / "in.json").write_text(f'{space}\n[{space}{{"text": "a"}}{space}]{space}')
    assert imported(tmp_path / "b", tmp_path / "in.json", "--no-standardize") == [{"text": "a"}]


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED_CHAT = [{"from": "human", "value": "q", "weight": None, "loss": False},
               {"from": "gpt", "value": "a", "weight": 1.0}]
TURNS = pa.struct([("role", pa.string()), ("content", pa.large_string()), ("weight", pa.int32())])


@pytest.mark.parametrize("row", [
    {"conversation": SHARED_CHAT, "id": "x"},
    {"conversations": json.dumps(SHARED_CHAT)},
    {"messages": json.dumps(CHAT)},
    {"instruction": "q", "input": None, "output": "a"},
    {"prompt": CHAT[:1], "completion": CHAT[1:]},
    {"prompt": CHAT[:1], "completion": "a"},
])
def test_forms_of_one_conversation(tmp_path, row):
    assert standard(tmp_path, [row]) == [{"conversations": CHAT}]


def test_lines_end_in_any_way(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a"}\r\n\r\n  \r\n{"text":"b\\r\\n"}\r\n{"text":"c"}')
    assert [row["text"] for row in imported(tmp_path / "b", path)] == ["a", "b\r\n", "c"]


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_columns_of_unusual_types(tmp_path, kind):
    strings = pa.array(["user", "assistant"]).dictionary_encode()
    view = [] if kind == ".parquet" else [pa.array(["x", "y"], pa.string_view())]
    turns = pa.StructArray.from_arrays([strings, pa.array(["q", "a"]), *view],
                                       names=["role", "content", *["view" for _ in view]])
    table = pa.table({
        "messages": pa.array([CHAT], pa.list_(TURNS)),
        "coded": pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), turns),
        "nothing": pa.nulls(1),
        "category": pa.array(["x"]).dictionary_encode(),
    })
    if kind == ".parquet":
        pa.parquet.write_table(table, tmp_path / "in.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "in.arrow", table.schema) as writer:
            writer.write_table(table)
    assert imported(tmp_path / "b", tmp_path / f"in{kind}") == table.to_pylist()
    assert rows_of(tmp_path / "b", stage="standardized") == [{"conversations": CHAT}]


def test_unknown_roles_are_named(tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"messages": [turn("user", "q"), turn("wizard", "a")]}])
    message = failure(tmp_path, tmp_path / "in.jsonl")
    assert "row 0" in message and "wizard" in message


def tree(base):
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def test_nothing_changes_when_nothing_changed(tmp_path):
    standard(tmp_path, [{"text": "a"}])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*")}
    imported(tmp_path / "b", tmp_path / "in.jsonl")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*")}
    assert standard(tmp_path, [{"text": "b"}]) == [{"text": "b"}]


@pytest.mark.parametrize("kind", ["lines", "array", "gz", "parquet", "csv"])
def test_a_killed_import_ends_with_the_same_bytes(tmp_path, kind):
    rows = [{"prompt": f"q{i} " * (i % 50 + 1), "completion": "a" * (i % 300 + 1)} for i in range(60000)]
    path = tmp_path / "in.jsonl"
    if kind == "array":
        path = tmp_path / "in.json"
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        path = tmp_path / "in.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "csv":
        path = tmp_path / "in.csv"
        pa.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        write_lines(path, rows)
        if kind == "gz":
            path = compress(path, ".gz")
    flags = ["--dataset", "ds", "--shard-examples", "3500"]
    start = time.monotonic()
    lorry("import-dataset", path, "--bucket", tmp_path / "whole", *flags)
    whole = time.monotonic() - start
    chance = random.Random(kind)
    for _ in range(12):
        child = subprocess.Popen([LORRY, "import-dataset", path, "--bucket", tmp_path / "b", *flags],
                                 stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.01, whole))
        child.send_signal(signal.SIGKILL)
        child.wait()
    lorry("import-dataset", path, "--bucket", tmp_path / "b", *flags)
    assert tree(tmp_path / "b") == tree(tmp_path / "whole")
    shutil.rmtree(tmp_path / "b")


LOOK_ALIKES = ["NA", "None", "null", "nan", "01234", "1.10", "True", "1e3", "+5", "-0", "inf", "3.0",
               "12345678901234567890123", "9007199254740993", "0.1", "7", "true"]


@pytest.mark.parametrize("others", [[], [""], ["word"], ["1"], ["2.5"], ["true"]])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_answers_of_csv_are_the_bytes_of_the_file(tmp_path, kind, others):
    separator = "," if kind == "csv" else "\t"
    for i, text in enumerate(LOOK_ALIKES):
        rows = [text, *others]
        path = tmp_path / f"{i}.{kind}"
        path.write_text(f"prompt{separator}completion\n" +
                        "".join(f"q{separator}{row}\n" for row in rows))
        imported(tmp_path / "b", path, name=f"ds{i}")
        answers = [row["conversations"][1]["content"]
                   for row in rows_of(tmp_path / "b", f"ds{i}", "standardized")]
        assert answers == [row for row in rows if row]


def test_missing_numbers_are_no_answers(tmp_path):
    table = pa.table({"prompt": ["q"] * 3, "completion": pa.array([0.1, float("nan"), 2.5],
                                                                  pa.float32())})
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    imported(tmp_path / "b", tmp_path / "in.parquet")
    answers = [row["conversations"][1]["content"] for row in rows_of(tmp_path / "b", stage="standardized")]
    assert answers == ["0.1", "2.5"]
    ledger = json.loads((tmp_path / "b/standardized/ds/info.json").read_text())["ledger"]
    assert ledger["dropped"] == {"empty completion": 1}


def test_infinite_numbers_are_no_text(tmp_path):
    pa.parquet.write_table(pa.table({"prompt": ["q"], "completion": [float("inf")]}),
                           tmp_path / "in.parquet")
    assert "column completion is an infinite number" in failure(tmp_path, tmp_path / "in.parquet")


def test_numbers_that_python_writes_into_json_are_read_as_null(tmp_path):
    call = {"name": "f", "arguments": {"x": float("nan")}}
    rows = [{"prompt": "q NaN", "completion": "a Infinity", "score": float("nan")},
            {"prompt": "q", "completion": [turn("assistant", "") | {"tool_calls": json.dumps([call])}],
             "score": float("inf")}]
    write_lines(tmp_path / "in.jsonl", rows)
    assert [row["score"] for row in imported(tmp_path / "b", tmp_path / "in.jsonl")] == [None, None]
    first, second = rows_of(tmp_path / "b", stage="standardized")
    assert [t["content"] for t in first["conversations"]] == ["q NaN", "a Infinity"]
    called, = json.loads(second["conversations"][1]["tool_calls"])
    assert called["function"]["arguments"] == {"x": None}


@pytest.mark.parametrize("call", [
    {"name": "f", "args": {"x": 1}},
    {"type": "tool_use", "name": "f", "input": {"x": 1}},
    {"functionCall": {"name": "f", "args": {"x": 1}}},
    {"function": {"name": "f", "arguments": '{"x": 1}'}},
])
def test_calls_of_every_form_keep_their_arguments(tmp_path, call):
    row = {"messages": [turn("user", "q"), turn("assistant", "") | {"tool_calls": [call]}],
           "tools": [{"name": "f", "input_schema": {"type": "object"}}]}
    write_lines(tmp_path / "in.jsonl", [row])
    imported(tmp_path / "b", tmp_path / "in.jsonl")
    got, = rows_of(tmp_path / "b", stage="standardized")
    made, = json.loads(got["conversations"][1]["tool_calls"])
    assert made["function"] == {"name": "f", "arguments": {"x": 1}}
    tool, = json.loads(got["tools"])
    assert tool == {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_an_answer_that_is_calls_of_the_rows_tools_is_tool_calls(tmp_path):
    tools = json.dumps([{"name": "f", "description": "d", "parameters": {"x": {"type": "int"}}}])
    rows = [{"query": "q", "answers": json.dumps([{"name": name, "arguments": {"x": 1}}]), "tools": tools} for name in "fg"]
    write_lines(tmp_path / "in.jsonl", rows)
    imported(tmp_path / "b", tmp_path / "in.jsonl")
    called, other = (row["conversations"][1] for row in rows_of(tmp_path / "b", stage="standardized"))
    assert json.loads(called["tool_calls"]) == [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    assert (other["content"], other["tool_calls"]) == (rows[1]["answers"], None)


def test_results_of_tools_inside_of_a_users_turn_are_turns_of_the_tool(tmp_path):
    text = {"type": "text", "text": "and now?"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "[22]"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "23"}]},
    ]
    answered = {"role": "assistant", "content": [{"type": "text", "text": "let me"}, call]}
    turns = [turn("user", "q"), answered, turn("user", [*results, text]), turn("assistant", "a")]
    write_lines(tmp_path / "in.jsonl", [{"system": "s", "messages": turns}, {"system": "s", "messages": [turn("user", "q"), turn("assistant", "a")]}])
    imported(tmp_path / "b", tmp_path / "in.jsonl")
    got, plain = rows_of(tmp_path / "b", stage="standardized")
    assert [(t["role"], t["content"], t["tool_call_id"]) for t in got["conversations"]] == [
        ("system", "s", None),
        ("user", "q", None),
        ("assistant", "let me", None),
        ("tool", "[22]", "toolu_1"),
        ("tool", "23", "toolu_2"),
        ("user", "and now?", None),
        ("assistant", "a", None),
    ]
    assert [t["content"] for t in plain["conversations"]] == ["s", "q", "a"]


@pytest.mark.parametrize("extra, message, said", [
    ({"tools": ["search"]}, {}, "column tools: tool 0 is not a definition"),
    ({"tools": [{}]}, {}, "column tools: tool 0 is not a definition"),
    ({}, {"tool_calls": [{"name": "f", "arguments": "{bad"}]}, "turn 1: the arguments of the tool call f are no JSON object"),
    ({}, {"tool_calls": [{"name": "f", "parms": {"x": 1}}]}, "turn 1: the tool call f has no arguments, but parms"),
])
def test_tools_and_calls_that_cannot_be_read_are_refused(lorry, tmp_path, extra, message, said):
    write_lines(tmp_path / "in.jsonl", [{"messages": [turn("user", "q"), turn("assistant", "a") | message]} | extra])
    failed = lorry("import-dataset", tmp_path / "in.jsonl", "--bucket", tmp_path / "b", code=1).stderr
    assert "row 0: " in failed and said in failed
