"""Containers and shapes of data sets: what `datasets` reads is read, and no word of an answer is lost or added.

Generated data sets in the public formats of docs/formats.md, in files of many kinds.
"""

import bz2
import functools
import gzip
import http.server
import io
import json
import lzma
import os
import random
import tarfile
import threading
import zipfile

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet

from hub_server import HubServer
from test_data import imported, lorry, rows_of

datasets.disable_progress_bars()
ROWS = [{"prompt": f"q{i} \u00e9 \U0001f600 \"\\", "completion": "line\nline " * (i % 5) + str(i)} for i in range(300)]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_of(rows):
    def field(text):
        return '"' + text.replace('"', '""') + '"'

    return "prompt,completion\n" + "".join(field(r["prompt"]) + "," + field(r["completion"]) + "\n" for r in rows)


def zipped(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files, mode="w", kind=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=kind) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def parquet():
    out = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


TEXT = lines(ROWS).encode()
LONG = "folder/" * 40 + "train.jsonl"
FILES = {
    "pretty.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "joined.jsonl": "".join(map(json.dumps, ROWS)).encode(),
    "two-a-line.jsonl": "".join(json.dumps(r) + (" " if i % 2 else "\n") for i, r in enumerate(ROWS, 1)).encode(),
    "late-two-a-line.jsonl": lines(ROWS[:150]).encode() + " ".join(map(json.dumps, ROWS[150:])).encode(),
    "returns.jsonl": TEXT.replace(b"\n", b"\r"),
    "utf16.jsonl": TEXT.decode().encode("utf-16"),
    "utf16-big.json": b"\xfe\xff" + json.dumps(ROWS, ensure_ascii=False).encode("utf-16-be"),
    "utf16.csv": csv_of(ROWS).encode("utf-16"),
    "utf16.jsonl.gz": gzip.compress(TEXT.decode().encode("utf-16")),
    "a.jsonl.bz2": bz2.compress(TEXT),
    "two-streams.jsonl.bz2": bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:]),
    "a.jsonl.xz": lzma.compress(TEXT),
    "two-streams.jsonl.xz": lzma.compress(TEXT[:1000]) + lzma.compress(TEXT[1000:]),
    "a.csv.xz": lzma.compress(csv_of(ROWS).encode()),
    "a.jsonl.zip": zipped({"a.jsonl": TEXT}),
    "alone.jsonl.zip": zipped({"data": TEXT}),
    "stored.zip": zipped({"b/a.jsonl": TEXT, "readme.txt": b"x"}, zipfile.ZIP_STORED),
    "parquet.zip": zipped({"a.parquet": parquet()}),
    "two.zip": zipped({"2.jsonl": lines(ROWS[100:]).encode(), "1.jsonl": lines(ROWS[:100]).encode()}),
    "splits.zip": zipped({"train.jsonl": TEXT, "test.jsonl": b"{}"}),
    "a.tar": tarred({"a.jsonl": TEXT}),
    "gnu.tar": tarred({LONG: TEXT}, kind=tarfile.GNU_FORMAT),
    "pax.tar": tarred({LONG: TEXT}),
    "a.tar.gz": tarred({"a.jsonl": TEXT}, "w:gz"),
    "a.tgz": tarred({"a.csv": csv_of(ROWS).encode()}, "w:gz"),
    "a.tar.bz2": tarred({"a.jsonl": TEXT}, "w:bz2"),
    "a.tar.xz": tarred({"a.jsonl": gzip.compress(TEXT)}, "w:xz"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_kind_give_their_rows(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert imported(tmp_path / "b", tmp_path / name, "--no-standardize") == ROWS


@pytest.mark.parametrize("name", ["two-a-line.jsonl", "returns.jsonl", "a.jsonl.zip", "a.jsonl.bz2", "a.jsonl.xz", "two.zip"])
def test_datasets_reads_the_same(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    ours = imported(tmp_path / "b", tmp_path / name, "--no-standardize")
    theirs = datasets.load_dataset("json", data_files=str(tmp_path / name), split="train", cache_dir=tmp_path / "c")
    key = str if name == "two.zip" else None
    assert sorted(theirs, key=key) == sorted(ours, key=key) if key else list(theirs) == ours


@pytest.mark.parametrize("name", ["a.jsonl.zip", "a.tar", "a.jsonl.xz", "a.tar.gz"])
def test_archives_come_over_http_and_from_the_hub(tmp_path, name):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / name).write_bytes(FILES[name])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        assert imported(tmp_path / "b", url, "--no-standardize") == ROWS
    finally:
        server.shutdown()


@pytest.mark.parametrize("name", ["a.jsonl.zip", "stored.zip", "a.tar.gz"])
def test_archives_come_from_the_hub(tmp_path, monkeypatch, name):
    with HubServer(tmp_path / "hub") as hub:
        hub.commit("datasets/owner/name", {f"data/{name}": FILES[name]})
        for key, value in hub.environment(tmp_path / "home", None).items():
            monkeypatch.setenv(key, value)
        source = "owner/name" if name != "a.tar.gz" else f"hf://datasets/owner/name/data/{name}"
        assert imported(tmp_path / "b", source, "--no-standardize") == ROWS


def damaged(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]


@pytest.mark.parametrize("name,data,words", [
    ("a.zip", FILES["a.jsonl.zip"][:-40], "not a whole zip archive"),
    ("a.zip", zipped({"a.txt": b"x"}), "no data files"),
    ("a.zip", zipped({"a.jpg": b"x", "a.json": b"{}"}), "pictures or sounds"),
    ("a.zip", damaged(FILES["a.jsonl.zip"], 200), "damaged"),
    ("a.jsonl.xz", FILES["a.jsonl.xz"][:-40], "damaged"),
    ("a.jsonl.bz2", FILES["a.jsonl.bz2"][:-40], "damaged"),
    ("a.tar.gz", FILES["a.tar.gz"][:-40], "damaged"),
    ("a.tar", FILES["a.tar"][:2000], "not a whole tar archive"),
    ("a.csv", b"pr\xe9,completion\nq,a\n", "UTF-8"),
    ("a.jsonl", b"\xff\xfe{", "UTF-16"),
    ("a.jsonl", b'{"prompt": "q"\n{"prompt": "q", "completion": "a"}\n', "line 1"),
    ("a.jsonl", b'[{"role": "user"}]\n[{"role": "user"}]\n', "a row is an object"),
    ("a.rar", b"Rar!", "unknown extension"),
])
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    done = lorry("import-dataset", tmp_path / name, "--bucket", tmp_path / "b", "--dataset", "ds", check=False)
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(error) == 1 and words in error[0] and name in error[0]


@pytest.mark.parametrize("name", ["two.zip", "pax.tar", "a.tar.gz", "a.jsonl.xz", "utf16.jsonl"])
def test_damage_anywhere_is_an_error_or_nothing(tmp_path, name):
    random_ = random.Random(name)
    for i in range(20):
        data = bytearray(FILES[name])
        for _ in range(random_.choice([1, 8])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        (tmp_path / f"{i}-{name}").write_bytes(data[: random_.choice([len(data), random_.randrange(len(data))])])
        done = lorry("import-dataset", tmp_path / f"{i}-{name}", "--bucket", tmp_path / "b", "--dataset", f"d{i}",
                     "--no-standardize", check=False)
        assert done.returncode in (0, 1), done.stderr
        assert done.returncode == 0 or "error: " in done.stderr


def test_the_flags_about_rows_decide_and_a_changed_one_makes_the_rows_anew(tmp_path):
    row = {"context": "c", "conversations": [{"from": "customer", "value": "q"}, {"from": "agent", "value": "a"}]}
    (tmp_path / "in.jsonl").write_text(lines([row]))
    bucket = ["--bucket", tmp_path / "b", "--dataset", "ds"]
    roles = ["--roles", "customer=user,agent=assistant"]
    refused = lorry("import-dataset", tmp_path / "in.jsonl", *bucket, *roles, check=False)
    assert refused.returncode == 1 and "--ignore-columns context" in refused.stderr
    done = lorry("standardize", *bucket, *roles, "--ignore-columns", "context")
    assert "not used: context" in done.stderr
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert rows_of(tmp_path / "b", stage="standardized") == [{"conversations": chat}]
    info = json.loads((tmp_path / "b/standardized/ds/info.json").read_text())
    assert (info["parts"], info["dropped_columns"]) == ("conversation: conversations", ["context"])
    again = lorry("standardize", *bucket, *roles, "--columns", "system=context")
    assert "nothing to do" not in again.stderr
    assert rows_of(tmp_path / "b", stage="standardized")[0]["conversations"][0] == {"role": "system", "content": "c"}


# ---- no word of an answer is lost or added --------------------------------------------------------


class Maker:
    """Rows of one format, each with the turns that it stands for, or None where it has no answer."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.words = 0

    def text(self, empty=0.0):
        if self.random.random() < empty:
            return self.random.choice(["", " ", "\n"])
        self.words += 1
        parts = [f"w{self.words}"] + [self.random.choice(["alpha", "b\u00e9ta", "\u4f60\u597d", "42", "\"x\"", "a\nb"])
                                     for _ in range(self.random.randint(0, 6))]
        return " ".join(parts)

    def chat(self):
        turns = [("system", self.text())] if self.random.random() < 0.3 else []
        for _ in range(self.random.randint(1, 3)):
            turns += [("user", self.text()), ("assistant", self.text(0.15))]
        return turns[:-1] if self.random.random() < 0.1 else turns

    def pair(self):
        return self.text(0.1), self.text(0.1)


def kept(turns):
    answers = [text for role, text in turns if role == "assistant"]
    return turns if any(text.strip() for text in answers) else None


def turns_of_pair(prompt, answer, before=()):
    whole = prompt.strip() and answer.strip()
    return [*before, ("user", prompt), ("assistant", answer)] if whole else None


def messages(make):
    turns = make.chat()
    return {"id": make.words, "messages": [{"role": r, "content": t} for r, t in turns]}, kept(turns)


def sharegpt(make):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = make.chat()
    return {"conversations": [{"from": names[r], "value": t} for r, t in turns]}, kept(turns)


def named_roles(make):
    turns = make.chat()
    return {"conversations": [{"from": r.upper() + " ", "value": t} for r, t in turns]}, kept(turns)


def pairs_of_role(make):
    turns = make.chat()
    return {"messages": [[r, t] for r, t in turns]}, kept(turns)


def python_repr(make):
    turns = make.chat()
    return {"messages": repr([{"role": r, "content": t} for r, t in turns])}, kept(turns)


def ultrachat(make):
    turns = [t for t in make.chat() if t[0] != "system"]
    return {"id": str(make.words), "data": [t for _, t in turns]}, kept(turns)


def xtuner(make):
    turns = [(r, make.text()) for _ in range(make.random.randint(1, 3)) for r in ("user", "assistant")]
    rows = [{"input": turns[i][1], "output": turns[i + 1][1]} for i in range(0, len(turns), 2)]
    return {"conversation": rows}, kept(turns)


def alpaca(make):
    prompt, answer = make.pair()
    given = make.text(0.5)
    whole = (prompt + "\n" + given if prompt else given) if given.strip() else prompt
    return {"instruction": prompt, "input": given, "output": answer}, turns_of_pair(whole, answer)


def dolly(make):
    row, turns = alpaca(make)
    return {"instruction": row["instruction"], "context": row["input"], "response": row["output"], "category": "qa"}, turns


def pair(make):
    prompt, answer = make.pair()
    return {"Question": prompt, "Answer": answer, "source": "web"}, turns_of_pair(prompt, answer)


def with_history(make):
    prompt, answer = make.pair()
    history = [[make.text(), make.text()] for _ in range(make.random.randint(0, 2))]
    before = [turn for q, a in history for turn in (("user", q), ("assistant", a))]
    return {"prompt": prompt, "response": answer, "history": history}, turns_of_pair(prompt, answer, before)


def preference(make):
    prompt, answer = make.pair()
    return {"prompt": prompt, "chosen": answer, "rejected": make.text()}, turns_of_pair(prompt, answer)


def prompt_of_turns(make):
    turns = make.chat()
    while turns and turns[-1][0] == "assistant":
        turns.pop()
    answer = make.text(0.1)
    row = {"messages": [{"role": r, "content": t} for r, t in turns], "response": answer}
    return row, [*turns, ("assistant", answer)] if answer.strip() else None


def gemini(make):
    turns = make.chat()
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    names = {"user": "user", "assistant": "model"}
    row = {"contents": [{"role": names[r], "parts": [{"text": t[:5]}, {"text": t[5:]}]} for r, t in turns]}
    row["systemInstruction"] = {"parts": [{"text": system}]} if system else None
    return row, kept([("system", system), *turns] if system else turns)


def squad(make):
    question, answer = make.pair()
    context = make.text(0.2)
    texts = [answer] * make.random.randint(0, 2)
    row = {"id": make.words, "context": context, "question": question}
    row["answers"] = {"text": texts, "answer_start": [3] * len(texts)}
    prompt = (question + "\n" + context if question else context) if context.strip() else question
    return row, turns_of_pair(prompt, texts[0] if texts else "")


def bedrock(make):
    turns = make.chat()
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    row = {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": system}] if system else None}
    row["messages"] = [{"role": r, "content": [{"text": t[:5]}, {"text": t[5:]}]} for r, t in turns]
    return row, kept([("system", system), *turns] if system else turns)


def openai_preference(make):
    turns = make.chat()
    while turns and turns[-1][0] == "assistant":
        turns.pop()
    answer = make.text(0.1)
    row = {"input": {"messages": [{"role": r, "content": t} for r, t in turns], "parallel_tool_calls": True},
           "preferred_output": [{"role": "assistant", "content": answer}],
           "non_preferred_output": [{"role": "assistant", "content": make.text()}]}
    return row, kept([*turns, ("assistant", answer)])


PUBLIC = [messages, sharegpt, named_roles, pairs_of_role, python_repr, ultrachat, xtuner, alpaca, dolly, pair,
          with_history, preference, prompt_of_turns, gemini, squad, bedrock, openai_preference]


def jsonl(rows):
    return "in.jsonl", lines(rows).encode()


def pretty_utf16(rows):
    return "in.jsonl", "\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in rows).encode("utf-16")


def zip_of_json(rows):
    return "in.zip", zipped({"a.json": json.dumps(rows).encode()})


def as_parquet(rows):
    out = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), out)
    return "in.parquet", out.getvalue()


@pytest.mark.parametrize("container", [jsonl, pretty_utf16, zip_of_json, as_parquet], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", PUBLIC, ids=lambda f: f.__name__)
def test_no_row_and_no_word_is_lost_or_added(tmp_path, shape, container):
    make = Maker(f"{shape.__name__} {container.__name__}")
    made = [shape(make) for _ in range(60)]
    name, data = container([row for row, _ in made])
    (tmp_path / name).write_bytes(data)
    flags = ["--prefer", "chosen"] if shape in (preference, openai_preference) else []
    imported(tmp_path / "b", tmp_path / name, *flags)
    info = json.loads((tmp_path / "b/standardized/ds/info.json").read_text())
    ledger = info["ledger"]
    got = [[(turn["role"], turn["content"]) for turn in row["conversations"]]
           for row in rows_of(tmp_path / "b", stage="standardized")]
    assert ledger["read"] == len(made) == ledger["kept"] + sum(ledger["dropped"].values())
    assert ledger["kept"] == info["rows"] == len(got)
    assert got == [turns for _, turns in made if turns]
