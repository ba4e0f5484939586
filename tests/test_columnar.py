"""Parquet and Arrow files whose columns differ or are of unusual types: nothing is lost unsaid."""

import json
import os
import subprocess
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"
datasets.disable_progress_bars()


def run_import(tmp_path, *flags):
    return subprocess.run([LORRY, "import-dataset", tmp_path / "d", "--bucket", tmp_path / "b",
                           "--dataset", "ds", *flags], capture_output=True, text=True)


def rows_of(tmp_path, stage):
    base = tmp_path / "b" / stage / "ds"
    count = json.loads((base / "info.json").read_text())["count"]
    return [row for shard in range(count + 1)
            for row in datasets.load_from_disk(str(base / str(shard)))]


def write_files(tmp_path, tables):
    (tmp_path / "d").mkdir(exist_ok=True)
    for i, table in enumerate(tables):
        pa.parquet.write_table(table, tmp_path / "d" / f"{i}.parquet")


def write_arrow(tmp_path, table):
    (tmp_path / "d").mkdir(exist_ok=True)
    with pa.ipc.new_stream(tmp_path / "d" / "in.arrow", table.schema) as writer:
        writer.write_table(table)


def imported(tmp_path, *flags):
    done = run_import(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    return rows_of(tmp_path, "raw")


def columns(**values):
    return pa.table({name: pa.array(*value) if isinstance(value, tuple) else value
                     for name, value in values.items()})


QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": "",
        "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}


def test_fields_that_structs_gain_in_a_later_file_are_kept(tmp_path):
    write_files(tmp_path, [
        pa.Table.from_pylist([{"messages": [QUESTION, ANSWER]}]),
        pa.Table.from_pylist([{"messages": [QUESTION, CALL]}]),
        pa.Table.from_pylist([{"messages": [{"from": "human", "value": "v"},
                                            {"from": "gpt", "value": "w"}]}]),
    ])
    raw = imported(tmp_path)
    assert raw[0]["messages"][1]["tool_calls"] is None
    assert raw[1]["messages"][1]["tool_calls"] == CALL["tool_calls"]
    first, second, third = rows_of(tmp_path, "standardized")
    assert [turn["content"] for turn in first["conversations"]] == ["q", "a"]
    calls = json.loads(second["conversations"][1]["tool_calls"])
    assert calls[0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert [turn["content"] for turn in third["conversations"]] == ["v", "w"]


@pytest.mark.parametrize("name", ["messages", "prompt"])
def test_arguments_that_only_other_calls_have_are_absent_and_not_null(tmp_path, name):
    def table(arguments):
        call = CALL | {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
        row = {"messages": [QUESTION, call]} if name == "messages" else \
            {"prompt": [QUESTION], "completion": [call]}
        return pa.Table.from_pylist([row])

    write_files(tmp_path, [table({"city": "Rome"}), table({"x": 1, "y": {"z": [2]}})])
    imported(tmp_path)
    calls = [json.loads(row["conversations"][1]["tool_calls"])[0]["function"]["arguments"]
             for row in rows_of(tmp_path, "standardized")]
    assert calls == [{"city": "Rome"}, {"x": 1, "y": {"z": [2]}}]


def test_columns_that_some_files_lack_are_null_there(tmp_path):
    write_files(tmp_path, [
        pa.Table.from_pylist([{"prompt": "p0", "completion": "c0", "extra": 5}]),
        pa.Table.from_pylist([{"completion": "c1", "prompt": "p1", "late": {"k": ["v"]}}]),
    ])
    assert imported(tmp_path) == [
        {"prompt": "p0", "completion": "c0", "extra": 5, "late": None},
        {"prompt": "p1", "completion": "c1", "extra": None, "late": {"k": ["v"]}}]


WIDER = {
    "null then text": (pa.array([None], pa.null()), pa.array(["x"])),
    "text then null": (pa.array(["x"]), pa.array([None], pa.null())),
    "int then double": (pa.array([1]), pa.array([1.5])),
    "double then int": (pa.array([1.5]), pa.array([2**53])),
    "int8 then uint8": (pa.array([-1], pa.int8()), pa.array([255], pa.uint8())),
    "int64 then uint64": (pa.array([-1]), pa.array([2**63 - 1], pa.uint64())),
    "text then large text": (pa.array(["x"]), pa.array(["y"], pa.large_string())),
    "coded text then text": (pa.array(["x"]).dictionary_encode(), pa.array(["y"])),
    "list then large list": (pa.array([[1]]), pa.array([[2.5]], pa.large_list(pa.float64()))),
    "list of fixed size then list": (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), pa.array([[3]])),
    "lists of nothing then of text": (pa.array([[]], pa.list_(pa.null())), pa.array([["x"]])),
    "structs in lists": (pa.array([[{"a": 1}, None]]), pa.array([[{"b": [{"c": "x"}]}]])),
}


@pytest.mark.parametrize("name", WIDER)
def test_types_that_differ_between_files_become_one_that_loses_nothing(tmp_path, name):
    arrays = WIDER[name]
    write_files(tmp_path, [pa.table({"c": array}) for array in arrays])

    def filled(value, like):  # the fields that other rows have
        if isinstance(like, dict) and value is not None:
            return {key: filled(value.get(key), inner) for key, inner in like.items()}
        if isinstance(like, list) and like and value is not None:
            return [filled(item, like[0]) for item in value]
        return value

    like = [{"a": 1, "b": [{"c": ""}]}] if name == "structs in lists" else None
    want = [{"c": filled(value, like)} for array in arrays for value in array.to_pylist()]
    assert imported(tmp_path, "--no-standardize") == want


@pytest.mark.parametrize("first, second, words", [
    ({"c": 1}, {"c": "x"}, ["column c", "string", "int64"]),
    ({"c": [{"a": "x"}]}, {"c": [{"a": {"b": 1}}]}, ["column c[].a", "struct", "string"]),
    ({"c": {"a": True}}, {"c": {"a": 1}}, ["column c.a", "int64", "bool"]),
    ({"c": 0.5}, {"c": 2**53 + 1}, ["column c", "9007199254740993"]),
    ({"c": "x"}, {"c": b"\xff"}, ["column c", "UTF8"]),
])
def test_types_without_a_common_one_stop_the_import_and_name_file_and_field(
        tmp_path, first, second, words):
    write_files(tmp_path, [pa.Table.from_pylist([first]), pa.Table.from_pylist([second])])
    done = run_import(tmp_path, "--no-standardize")
    assert done.returncode != 0 and not (tmp_path / "b" / "raw" / "ds" / "info.json").exists()
    for word in ["1.parquet", *words]:
        assert word in done.stderr, done.stderr


def turns_as(kind, role="role", content="content"):
    turns = [{role: "user", content: "q"}, {role: "assistant", content: "a"}]
    struct = pa.struct([(role, pa.string()), (content, pa.string())])
    if kind == "maps":
        return pa.array([[list(turn.items()) for turn in turns]],
                        pa.list_(pa.map_(pa.string(), pa.string())))
    if kind == "columns":
        return pa.array([{key: [turn[key] for turn in turns] for key in (role, content)}])
    types = {"list_view": pa.list_view, "large_list_view": pa.large_list_view,
             "large_list": pa.large_list, "fixed_size_list": lambda item: pa.list_(item, 2)}
    return pa.array([turns], types[kind](struct))


@pytest.mark.parametrize("role, content", [("role", "content"), ("from", "value")])
@pytest.mark.parametrize("kind", ["list_view", "large_list_view", "large_list", "fixed_size_list",
                                  "maps", "columns"])
def test_turns_are_read_from_every_kind_of_list(tmp_path, kind, role, content):
    write_arrow(tmp_path, pa.table({"messages": turns_as(kind, role, content)}))
    imported(tmp_path)
    assert rows_of(tmp_path, "standardized") == [{"conversations": [QUESTION, ANSWER]}]


def test_runs_views_and_codes_are_read_as_their_values(tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None])
    nested = pa.ListArray.from_arrays([0, 1, 3, 3], pa.RunEndEncodedArray.from_arrays([2, 3], [7, 8]))
    table = pa.table({
        "prompt": pa.array(["q0", "q1", "q2"], pa.string_view()),
        "completion": runs,
        "coded_runs": pa.RunEndEncodedArray.from_arrays([3], pa.array(["x"]).dictionary_encode()),
        "nested": nested,
        "views": pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())),
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "numbers": pa.array([[(1, "x")], [], None], pa.map_(pa.int64(), pa.string())),
        "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())),
    }).slice(1)
    write_arrow(tmp_path, table)
    assert imported(tmp_path) == [
        {"prompt": "q1", "completion": "a", "coded_runs": "x", "nested": [7, 8], "views": None,
         "map": {}, "numbers": [], "flag": False},
        {"prompt": "q2", "completion": None, "coded_runs": "x", "nested": [], "views": [2, 3],
         "map": None, "numbers": None, "flag": None}]
    assert rows_of(tmp_path, "standardized") == [
        {"conversations": [{"role": "user", "content": "q1"}, ANSWER]}]


@pytest.mark.parametrize("kind", ["union", "interval"])
def test_types_that_no_row_can_have_are_refused_by_name(tmp_path, kind):
    array = pa.array([pa.MonthDayNano([1, 2, 3])])
    if kind == "union":
        array = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()),
                                         [pa.array([5])])
    write_arrow(tmp_path, pa.table({"c": pa.StructArray.from_arrays([array], ["inner"])}))
    done = run_import(tmp_path, "--no-standardize")
    assert done.returncode != 0
    assert "in.arrow" in done.stderr and "column c.inner" in done.stderr and kind in done.stderr


def test_bytes_that_are_no_text_are_no_answer(tmp_path):
    write_files(tmp_path, [pa.table({"prompt": ["q", "q"], "completion": [b"a", b"\xff\xfe"]})])
    done = run_import(tmp_path)
    assert done.returncode != 0 and "row 1" in done.stderr
    assert "column completion is not text" in done.stderr


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_sequence_of_dicts_is_a_list_of_them_wherever_it_is(tmp_path, kind):
    row = {"messages": {"role": ["user", "assistant"], "content": ["q", ""], "weight": None,
                        "tool_calls": [None, {"function": {"name": ["f"], "arguments": ["{}"]}}]},
           "tools": {"type": ["function"], "function": {"name": ["f"], "description": ["does"]}}}
    (tmp_path / "d").mkdir()
    if kind == "jsonl":
        (tmp_path / "d" / "in.jsonl").write_text(json.dumps(row))
    else:
        write_files(tmp_path, [pa.Table.from_pylist([row])])
    imported(tmp_path)
    standard, = rows_of(tmp_path, "standardized")
    assert [turn["content"] for turn in standard["conversations"]] == ["q", ""]
    call, = json.loads(standard["conversations"][1]["tool_calls"])
    assert call["function"] == {"name": "f", "arguments": {}}
    tool, = json.loads(standard["tools"])
    assert tool["function"] == {"name": "f", "description": "does"}


@pytest.mark.parametrize("value, words", [
    ({"role": ["user", "assistant"], "content": ["q"]}, "role has 2 values, but content has 1"),
    ({"role": "user", "content": "q"}, "an object with the keys role, content"),
    ("hello", "is text, not a list of turns"),
])
def test_what_is_no_list_of_turns_is_said(tmp_path, value, words):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in.jsonl").write_text(json.dumps({"messages": value}))
    done = run_import(tmp_path)
    assert done.returncode != 0 and words in done.stderr, done.stderr
