"""lorry, `datasets` and `huggingface_hub` against the same small Hub (hub_server.py).

That the real clients work against it shows that the server is faithful; that lorry brings the same
files, rows and bytes as they do is what is tested.
"""

import gzip
import http.server
import io
import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from conftest import EXAMPLE_MODEL, find_free_port, tree_digest
from hub_server import HubServer

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def run(lorry, hub, bucket, tmp_path):
    """`run("import-dataset", "owner/name")` against the Hub, into the test's bucket."""

    def call(verb, *args, token=None, env=None, **kwargs):
        env = {**hub.environment(tmp_path / "home", token), **(env or {})}
        env.setdefault("LORRY_ENGINE", "/nonexistent")  # architectures are not the subject
        return lorry(verb, *args, "--bucket", bucket, env=env, **kwargs)

    return call


def python(hub, home, script, *args, token=None):
    """Runs a script with the real clients pointed at the Hub and returns what it prints as JSON."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= hub.environment(home, token) | {"HF_DATASETS_CACHE": str(pathlib.Path(home) / "ds")}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows_of(path, columns=("path",)):
    """A small file whose rows say which file they are of."""
    rows = [{"path": path, "row": i} for i in range(2)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    suffixes = path.split("/")[-1].split(".")[1:]
    if "parquet" in suffixes:
        return parquet(rows)
    if "arrow" in suffixes:
        sink = io.BytesIO()
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
    if "csv" in suffixes or "tsv" in suffixes:
        separator = "," if "csv" in suffixes else "\t"
        lines = [f"path{separator}row"] + [f"{r['path']}{separator}{r['row']}" for r in rows]
        return ("\n".join(lines) + "\n").encode()
    return text.encode()


def parquet(rows, **options):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def raw_rows(bucket, dataset):
    """The rows of raw/{dataset}, in order."""
    directory = pathlib.Path(bucket) / "raw" / dataset
    info = json.loads((directory / "info.json").read_text())
    rows = []
    for shard in range(info["count"] + 1):
        state = json.loads((directory / str(shard) / "state.json").read_text())
        for file in state["_data_files"]:
            with pa.ipc.open_stream(str(directory / str(shard) / file["filename"])) as stream:
                rows += stream.read_all().to_pylist()
    return rows


def inputs(bucket, dataset):
    return json.loads((pathlib.Path(bucket) / "raw" / dataset / "info.json").read_text())["inputs"]


# ---- the server is faithful ----------------------------------------------------------------------

CLIENTS = """
    import json, pathlib, sys
    import datasets, huggingface_hub as hub
    from huggingface_hub import errors
    out = {}
    out["rows"] = datasets.load_dataset("o/data", split="train").num_rows
    out["streamed"] = sum(1 for _ in datasets.load_dataset("o/data", split="test", streaming=True))
    out["files"] = sorted(hub.list_repo_files("o/model"))
    folder = pathlib.Path(hub.snapshot_download("o/model"))
    out["sizes"] = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    fs = hub.HfFileSystem()
    out["glob"] = fs.glob("datasets/o/data/**/*.parquet")
    with fs.open("o/model/model.safetensors", "rb") as file:
        file.seek(1000)
        out["range"] = file.read(10).hex()
    out["refs"] = [ref.name for ref in hub.list_repo_refs("o/model").tags]
    out["info"] = hub.model_info("o/model", revision="v1").sha
    out["whoami"] = hub.whoami(token=sys.argv[1])["name"]
    out["paths"] = [f.path for f in hub.HfApi().get_paths_info("o/model", ["config.json", "none"])]

    def kind(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except errors.HfHubHTTPError as error:
            return type(error).__name__
    out["gated"] = kind(hub.hf_hub_download, "o/gated", "config.json")
    out["refused"] = kind(hub.hf_hub_download, "o/gated", "config.json", token="hf_other")
    out["allowed"] = hub.hf_hub_download("o/gated", "config.json", token=sys.argv[1])[-11:]
    out["entry"] = kind(hub.hf_hub_download, "o/model", "none.json")
    out["revision"] = kind(hub.hf_hub_download, "o/model", "config.json", revision="v9")
    out["repository"] = kind(hub.hf_hub_download, "o/none", "config.json", token=sys.argv[1])
    out["disabled"] = kind(hub.model_info, "o/off")
    print(json.dumps(out))
"""


@pytest.mark.parametrize("resolve_cache", [False, True])
def test_the_real_clients_work_against_the_server(hub, tmp_path, resolve_cache):
    hub.page_size, hub.resolve_cache = 3, resolve_cache
    weights = random.Random(1).randbytes(100_000)
    shards = {f"data/train-{i:05}-of-00004.parquet": rows_of("x.parquet") for i in range(4)}
    hub.commit("datasets/o/data", shards | {"data/test-00000-of-00001.parquet": rows_of("y.parquet")})
    first = hub.commit("models/o/model", {"config.json": "{}", "a/b/c.txt": "x"})
    hub.tag("models/o/model", "v1")
    hub.commit("models/o/model", {"model.safetensors": weights, "tokenizer.json": "{}"})
    for name, state in {"gated": {"gated": "auto"}, "off": {"disabled": True}}.items():
        hub.commit(f"models/o/{name}", {"config.json": "{}"})
        hub.set(f"models/o/{name}", **state)
    hub.add_token(TOKEN, "someone", ["o/gated"])
    hub.add_token("hf_other")
    out = python(hub, tmp_path / "home", CLIENTS, TOKEN)
    assert out["rows"] == 8 and out["streamed"] == 2
    assert out["files"] == ["a/b/c.txt", "config.json", "model.safetensors", "tokenizer.json"]
    assert out["sizes"]["model.safetensors"] == 100_000 and len(out["sizes"]) == 4
    assert len(out["glob"]) == 5
    assert out["range"] == weights[1000:1010].hex()
    assert out["refs"] == ["v1"] and out["info"] == first and out["whoami"] == "someone"
    assert out["paths"] == ["config.json"] and out["allowed"] == "config.json"
    assert out["gated"] == out["refused"] == "GatedRepoError"
    assert out["entry"] == "RemoteEntryNotFoundError"
    assert out["revision"] == "RevisionNotFoundError"
    assert out["repository"] == "RepositoryNotFoundError"
    assert out["disabled"] == "DisabledRepoError"
    assert not [r for r in hub.requests(where="cdn") if r["authorization"]]


# ---- which files are a data set ------------------------------------------------------------------


def card(configs):
    return f"---\nlicense: mit\n{textwrap.dedent(configs).strip()}\n---\n# A data set\n"


def files(*paths, readme=None, **others):
    return {path: None for path in paths} | ({"README.md": readme} if readme else {}) | others


# name -> (files, config or None); what `datasets` makes of them decides what is right.
LAYOUTS = {
    "sharded": files(*[f"data/{s}-{i:05}-of-00002.parquet" for s in ("train", "test") for i in (1, 0)]),
    "sharded-hash": files("data/train-00000-of-00001-0a1b2c3d4e5f6789.parquet"),
    "sharded-own-names": files("data/zeta-00000-of-00001.jsonl", "data/alpha_1-00000-of-00001.jsonl"),
    "sharded-with-others": files("data/train-00000-of-00001.jsonl", "data/more.jsonl", "b.jsonl"),
    "one-file": files("anything.jsonl"),
    "all-train": files("b.jsonl", "a.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl"),
    "file-names": files("train.jsonl", "valid.jsonl", "test.jsonl", "notes.jsonl"),
    "file-names-long": files("my_train_1.csv", "my-dev 2.csv", "x.eval.csv", "training.csv"),
    "file-words-inside": files("trainer.jsonl", "contest.jsonl", "latest.jsonl"),
    "folders": files("train/b.jsonl", "train/a.jsonl", "test/a.jsonl", "x.jsonl"),
    "folders-deep": files("data/my-train-set/p/1.csv", "data/evaluation/2.csv", "data/val_3/3.csv"),
    "folders-before-files": files("train/a.jsonl", "test.jsonl"),
    "only-test": files("test.jsonl"),
    "two-unknown-splits": files("validation.jsonl", "test.jsonl"),
    "mixed-extensions": files("a.jsonl", "b.jsonl", "c.csv", "LICENSE.txt"),
    "mixed-draw": files("a.csv", "b.parquet", "c.jsonl"),
    "draw-json-csv": files("a.csv", "c.json"),
    "tsv": files("train.tsv"),
    "ndjson": files("train.ndjson"),
    "arrow": files("data/train-00000-of-00001.arrow"),
    "compressed-name": files("train.jsonl.gz.jsonl"),
    "hidden": files("a.jsonl", ".hidden.jsonl", ".git/b.jsonl", "__pycache__/c.jsonl", "__x__.jsonl"),
    "ignored": files("a.jsonl", "config.json", "dataset_info.json", "sub/dataset_infos.json"),
    "markdown": files("a.jsonl", "CHANGELOG.md", "docs/more.md", "pyproject.toml"),
    "upper-case": files("A.JSONL", "b.jsonl"),
    "spaces": files("my data/train file.jsonl", "my data/ümläut.jsonl"),
    "dots": files("v1.0.train.jsonl", "v1.0.test.jsonl"),
    "numbers": files("train1.jsonl", "train-2.jsonl", "10train.jsonl"),
    "many-shards": files(*[f"data/train-{i:05}-of-00012.jsonl" for i in range(12)]),
    "root-shards": files(*[f"train-{i:05}-of-00003.jsonl" for i in range(3)]),
    "long-numbers": files("data/train-000000-of-000002.jsonl", "data/train-000001-of-000002.jsonl"),
    "card-string": files("a/x.jsonl", "b/y.jsonl", readme=card("configs:\n- config_name: default\n  data_files: a/*")),
    "card-list": files("a/x.jsonl", "b/y.jsonl", "c/z.jsonl", readme=card("""
        configs:
        - config_name: main
          data_files:
          - c/*
          - a/x.jsonl
        """)),
    "card-splits": files("d/1.jsonl", "d/2.jsonl", "e/3.jsonl", readme=card("""
        configs:
        - config_name: default
          data_files:
          - split: train
            path:
            - d/2.jsonl
            - "d/1.jsonl"
          - split: test
            path: e/*.jsonl
        """)),
    "card-configs": files("en/train.jsonl", "en/test.jsonl", "de/train.jsonl", readme=card("""
        configs:
        - config_name: de
          data_dir: de
        - config_name: en
          data_dir: en
          default: true
        """)),
    "card-no-default": files("en/train.jsonl", "de/train.jsonl", readme=card("""
        configs:
        - config_name: de
          data_dir: de
        - config_name: en
          data_files: en/*
        """)),
    "card-named-default": files("x/1.csv", "y/1.csv", readme=card("""
        configs:
        - config_name: x
          data_files: "x/*.csv"
        - config_name: default
          data_files: "y/*.csv"
        """)),
    "card-flow": files("d/1.jsonl", "d/2.jsonl", readme=card(
        "configs: [{config_name: c, data_files: [{split: train, path: 'd/**'}]}]")),
    "card-anchors": files("d/1.jsonl", "e/2.jsonl", readme=card("""
        common: &files
          data_files: d/*
        configs:
        - config_name: one
          <<: *files
        """)),
    "card-dataset-info": files("en/train.jsonl", "de/train.jsonl", readme=card("""
        dataset_info:
          config_name: de
          features:
          - name: path
            dtype: string
          - name: row
            dtype: int64
        configs:
        - config_name: de
          data_dir: de
        - config_name: en
          data_dir: en
        """)),
    "card-glob-depth": files("d/1.jsonl", "d/e/2.jsonl", "d/e/f/3.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: d/**/*.jsonl
        """)),
    "card-glob-star": files("d/1.jsonl", "d/e/2.jsonl", "3.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: "*/*.jsonl"
        """)),
    "card-class": files("p1.jsonl", "p2.jsonl", "p3.jsonl", "px.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: "p[1-2x].jsonl"
        """)),
    "card-hidden-asked": files(".h/1.jsonl", "__s__/2.jsonl", "x.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: [".h/*", "__s__/*"]
        """)),
    "card-readme-is-data": files("a.json", "config.json", readme=card("""
        configs:
        - config_name: a
          data_files: config.json
        """)),
    "card-twice": files("d/1.jsonl", "d/2.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: ["d/*", "d/1.jsonl"]
        """)),
    "card-windows": files("d/1.jsonl", "2.jsonl", readme=card(
        "configs:\n- config_name: a\n  data_files: d/*").replace("\n", "\r\n")),
    "card-missing": files("d/1.jsonl", readme=card("configs:\n- config_name: a\n  data_files: none.jsonl")),
    "card-empty-glob": files("d/1.jsonl", readme=card("configs:\n- config_name: a\n  data_files: e/*")),
    "card-bad-star": files("d/1.jsonl", readme=card("configs:\n- config_name: a\n  data_files: '**.jsonl'")),
    "card-broken-yaml": files("d/1.jsonl", readme="---\nconfigs: [\n---\n"),
    "card-not-a-list": files("d/1.jsonl", readme=card("configs:\n  a: b")),
    "card-no-name": files("d/1.jsonl", readme=card("configs:\n- data_files: d/*")),
    "card-two-defaults": files("a.jsonl", "b.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files: a.jsonl
          default: true
        - config_name: b
          data_files: b.jsonl
          default: true
        """)),
    "card-duplicate-split": files("a.jsonl", "b.jsonl", readme=card("""
        configs:
        - config_name: a
          data_files:
          - {split: train, path: a.jsonl}
          - {split: train, path: b.jsonl}
        """)),
    "card-outside": files("a.jsonl", readme=card(
        "configs:\n- config_name: a\n  data_files: hf://datasets/o/one-file/anything.jsonl")),
    "card-data-dir-and-files": files("x/a/1.jsonl", "x/b/2.jsonl", "a/3.jsonl", readme=card("""
        configs:
        - config_name: one
          data_files: "**/*.jsonl"
        - config_name: two
          data_dir: x
          data_files: a/*
          default: true
        """)),
    "yaml-beside": files("a.jsonl", "b.jsonl", **{".huggingface.yaml": "configs:\n- config_name: z\n  data_files: b.jsonl\n"}),
    "no-data": files("notes.doc", readme="# nothing\n"),
    "images": files("a.png", "b.png", "metadata.jsonl"),
    "script": files("script.py", readme="# a script\n"),
}

BUILDERS = """
    import json, sys
    import datasets
    datasets.logging.set_verbosity_error()
    out = {}
    for name in json.loads(sys.argv[1]):
        try:
            builder = datasets.load_dataset_builder(f"o/{name}")
            found = {str(s): [f.split("@")[1].split("/", 1)[1] for f in list(fs)] for s, fs in builder.config.data_files.items()}
            out[name] = {"config": builder.config.name, "splits": found, "configs": list(builder.builder_configs)}
            out[name]["module"] = builder.name
        except Exception as error:
            out[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The Hub with all layouts, and what `datasets` makes of each."""
    root = tmp_path_factory.mktemp("layouts")
    with HubServer(root / "hub", page_size=5) as server:
        for name, content in LAYOUTS.items():
            made = {p: rows_of(p) if text is None else text for p, text in content.items()}
            server.commit(f"datasets/o/{name}", made)
        server.answers = python(server, root / "home", BUILDERS, json.dumps(list(LAYOUTS)))
        yield server



@pytest.mark.parametrize("name", LAYOUTS)
def test_a_repository_has_the_files_that_datasets_finds(lorry, layouts, tmp_path, name):
    expected = layouts.answers[name]
    env = layouts.environment(tmp_path / "home")

    def imported(*args):
        bucket = tmp_path / f"bucket{len(args)}{args[-1] if args else ''}"
        done = lorry("import-dataset", f"o/{name}", *args, "--no-standardize", "--bucket", bucket, env=env, code=None)
        if done.returncode != 0:
            return done.stderr
        paths = [row["path"] for row in raw_rows(bucket, f"o/{name}")]
        return paths[::2]

    if "error" in expected:
        message = imported()
        assert isinstance(message, str), f"datasets: {expected['error']}"
        assert len(message.strip().splitlines()) <= 2, message
        return
    splits = expected["splits"]
    if expected["module"] == "harbor":  # documents outnumber the data; lorry takes the data
        assert imported() == ["a.jsonl"]
        return
    if expected["module"] not in ("json", "csv", "parquet", "arrow"):
        assert "lorry imports" in imported()
        return
    default = imported()
    if "train" in splits or len(splits) == 1:
        assert default == splits.get("train", next(iter(splits.values())))
    else:
        assert ", ".join(splits) in default
    for split, paths in splits.items():
        if paths:
            assert imported("--split", split) == paths
    assert all(split in imported("--split", "nowhere") for split in splits)


@pytest.mark.parametrize("config, split", [("de", "train"), ("en", "test"), ("en", "")])
def test_configs_are_chosen_by_name(run, layouts, hub, bucket, tmp_path, config, split):
    content = LAYOUTS["card-configs"]
    hub.commit("datasets/o/n", {p: rows_of(p) if t is None else t for p, t in content.items()})
    args = ["--config", config] + (["--split", split] if split else [])
    run("import-dataset", "o/n", *args, "--no-standardize")
    assert [r["path"] for r in raw_rows(bucket, "o/n")][::2] == [f"{config}/{split or 'train'}.jsonl"]
    done = run("import-dataset", "o/n", "--config", "fr", code=2)
    assert "o/n has no config 'fr'; --config takes one of: de, en" in done.stderr


# ---- rows of data sets ---------------------------------------------------------------------------

ROWS = """
    import json, sys, datasets
    rows = datasets.load_dataset(sys.argv[1], split="train")
    print(json.dumps([dict(row) for row in rows]))
"""


def some_rows(count, start=0):
    return [{"id": i, "text": f"row {i} é", "score": i / 8} for i in range(start, start + count)]


def encode(rows, suffix):
    if suffix == "parquet":
        return parquet(rows, row_group_size=100)
    if suffix == "csv":
        lines = ["id,text,score"] + [f'{r["id"]},"{r["text"]}",{r["score"]}' for r in rows]
        return ("\n".join(lines) + "\n").encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_rows_are_those_of_datasets(run, hub, bucket, tmp_path, suffix):
    shards = {f"data/train-{i:05}-of-00003.{suffix}": encode(some_rows(500, 500 * i), suffix) for i in range(3)}
    hub.commit("datasets/o/rows", shards)
    run("import-dataset", "o/rows", "--no-standardize", "--shard-examples", 400)
    assert raw_rows(bucket, "o/rows") == python(hub, tmp_path / "home", ROWS, "o/rows")
    assert run("import-dataset", "o/rows", "--no-standardize", "--shard-examples", 400, "--json").stdout
    again = json.loads(run("import-dataset", "o/rows", "--no-standardize", "--shard-examples", 400, "--json").stdout)
    assert again["up_to_date"] is True


def test_parquet_is_read_by_ranges(run, hub, bucket, tmp_path):
    """A file is never fetched whole first, and each byte about once."""
    rng = random.Random(5)
    rows = [{"id": i, "text": rng.randbytes(500).hex()} for i in range(20_000)]
    data = parquet(rows, row_group_size=1000)
    hub.commit("datasets/o/big", {"train.parquet": data})
    run("import-dataset", "o/big", "--no-standardize")
    assert raw_rows(bucket, "o/big") == rows
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", r["range"]) for r in hub.requests(where="cdn")]
    sizes = [int(r[2]) - int(r[1]) + 1 for r in ranges]
    assert max(sizes) < len(data) / 2
    assert sum(sizes) < 1.5 * len(data)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet", "csv"])
def test_small_files_cost_no_more_requests_than_with_datasets(run, hub, bucket, tmp_path, suffix):
    def content(i):
        text = encode(some_rows(20, 20 * i), suffix)
        return gzip.compress(text) if suffix.endswith("gz") else text

    names = [f"data/train-{i:05}-of-00020.{suffix}" for i in range(20)]
    hub.commit("datasets/o/small", {name: content(i) for i, name in enumerate(names)})
    run("import-dataset", "o/small", "--no-standardize")
    ours = len(hub.requests())
    assert raw_rows(bucket, "o/small") == python(hub, tmp_path / "home", ROWS, "o/small")
    assert ours <= len(hub.requests()) - ours
    assert ours <= 4 + (20 if suffix in ("jsonl", "csv") else 40)  # large files lie elsewhere


def test_a_list_of_urls_is_asked_side_by_side(run, bucket, tmp_path):
    at_once, most = 0, 0
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.05)
            body = rows_of(self.path)
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            part = body[int(first) : int(last) + 1]
            with lock:
                at_once -= 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listing = tmp_path / "urls.txt"
    listing.write_text("".join(f"http://127.0.0.1:{server.server_port}/{i}.jsonl\n" for i in range(100)))
    try:
        run("import-dataset", f"@{listing}", "--no-standardize", "--dataset", "d")
    finally:
        server.shutdown()
        server.server_close()
    assert [row["path"] for row in raw_rows(bucket, "d")][::2] == [f"/{i}.jsonl" for i in range(100)]
    assert 4 < most <= 16


def test_offline_the_hub_is_not_asked(run, hub, bucket, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1"}
    hub.commit("datasets/o/n", {"a.jsonl": rows_of("a.jsonl")})
    commit = hub.commit("models/Qwen/Tiny-0.1B", sharded_model())
    said = run("import-dataset", "o/n", code=2, env=offline).stderr
    assert "HF_HUB_OFFLINE=1 keeps lorry from asking the Hub for o/n" in said
    assert "its cache has no copy" in run("import-model", "Qwen/Tiny-0.1B", code=2, env=offline).stderr
    assert not hub.requests()
    python(hub, tmp_path / "home", SNAPSHOT, "Qwen/Tiny-0.1B")
    asked = len(hub.requests())
    run("import-model", "Qwen/Tiny-0.1B", env=offline)
    assert len(hub.requests()) == asked
    info = json.loads((bucket / "models/Qwen/Tiny-0.1B/info.json").read_text())
    assert info["source"] == f"hf://Qwen/Tiny-0.1B@{commit}"
    local = tmp_path / "local.jsonl"
    local.write_bytes(rows_of("local.jsonl"))
    run("import-dataset", local, "--no-standardize", env=offline)


def test_sources_of_every_kind(run, hub, bucket, tmp_path):
    hub.commit("datasets/o/n", {f"part/{x}.jsonl": rows_of(f"part/{x}.jsonl") for x in "abc"})
    listing = tmp_path / "list.txt"
    url = f"{hub.url}/datasets/o/n/resolve/main/part/a.jsonl"
    listing.write_text(f"# two of them\nhf://datasets/o/n/part/b.jsonl\n\n{url}\n")
    local = tmp_path / "local.jsonl"
    local.write_bytes(rows_of("local.jsonl"))

    def paths(*sources):
        run("import-dataset", *sources, "--no-standardize", "--dataset", "x")
        return [row["path"].split("/")[-1][0] for row in raw_rows(bucket, "x")][::2]

    assert paths("hf://datasets/o/n/part/[bc].jsonl") == ["b", "c"]
    assert paths("hf://datasets/o/n@main/part") == ["a", "b", "c"]
    assert paths(f"@{listing}") == ["b", "a"]
    assert paths(local, f"@{listing}", "o/n") == ["l", "b", "a", "a", "b", "c"]
    assert paths(f"{hub.url}/datasets/o/n/blob/main/part/c.jsonl") == ["c"]
    done = run("import-dataset", url, "--split", "test", code=2)
    assert "--config and --split choose from" in done.stderr


def test_a_server_without_ranges_is_spooled(run, bucket, tmp_path):
    import functools

    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "x.jsonl").write_bytes(rows_of("x.jsonl") * 1000)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://user:secret@127.0.0.1:{server.server_port}/x.jsonl?sig=secret"
        run("import-dataset", url, "--no-standardize")
        assert len(raw_rows(bucket, "x")) == 2000
        info = (bucket / "raw" / "x" / "info.json").read_text()
        assert "secret" not in info
        done = run("import-dataset", url.replace("x.jsonl", "y.jsonl"), code=1)
        assert "there is no such file (HTTP 404)" in done.stderr and "secret" not in done.stderr
    finally:
        server.shutdown()
        server.server_close()


# ---- revisions -----------------------------------------------------------------------------------


def test_a_branch_that_moves_changes_nothing(run, hub, bucket):
    """The commit is pinned when the import begins, and recorded."""
    before = {f"data/train-{i:05}-of-00005.jsonl": encode(some_rows(50, 50 * i), "jsonl") for i in range(5)}
    first = hub.commit("datasets/o/moving", before)
    seen = []

    def move(request):
        if "/resolve/" in request["path"] and not seen:
            seen.append(hub.commit("datasets/o/moving", {p: b'{"id": 0}\n' for p in before}))

    hub.on_request = move
    run("import-dataset", "o/moving", "--no-standardize")
    hub.on_request = None
    assert seen and raw_rows(bucket, "o/moving") == some_rows(250)
    assert all(f"@{first}/" in source["path"] for source in inputs(bucket, "o/moving")["source"])
    assert not hub.requests(f"resolve/(main|{seen[0]})")
    hub.tag("datasets/o/moving", "v1", first)
    for revision in ("v1", first):
        done = run("import-dataset", "o/moving", "--no-standardize", "--revision", revision, "--json")
        assert json.loads(done.stdout)["up_to_date"] is True
    run("import-dataset", "o/moving", "--no-standardize")
    assert raw_rows(bucket, "o/moving") == [{"id": 0}] * 5


def test_a_converted_branch_can_be_named(run, hub, bucket):
    hub.commit("datasets/o/script", {"script.py": "print()"})
    converted = {"default/train/0000.parquet": rows_of("0000.parquet")}
    hub.commit("datasets/o/script", converted, branch="refs/convert/parquet")
    done = run("import-dataset", "o/script", code=1)
    assert "loading script" in done.stderr and "--revision refs/convert/parquet" in done.stderr
    run("import-dataset", "o/script", "--revision", "refs/convert/parquet", "--no-standardize")
    assert len(raw_rows(bucket, "o/script")) == 2
    run("import-dataset", "hf://datasets/o/script@refs/convert/parquet/default/train/0000.parquet", "--no-standardize")


# ---- what goes wrong -----------------------------------------------------------------------------


def test_messages_say_what_to_do(run, hub, tmp_path):
    hub.commit("datasets/o/open", {"a.jsonl": rows_of("a.jsonl")})
    hub.tag("datasets/o/open", "v1.0")
    for name, state in {"gated": {"gated": "manual"}, "private": {"private": True}, "off": {"disabled": True}}.items():
        hub.commit(f"datasets/o/{name}", {"a.jsonl": rows_of("a.jsonl")})
        hub.set(f"datasets/o/{name}", **state)
    hub.add_token(TOKEN, repos=["o/gated", "o/private"])
    hub.add_token("hf_stranger")

    def error(source, *args, code=1, **kwargs):
        done = run("import-dataset", source, *args, code=code, **kwargs)
        line = done.stderr.strip().splitlines()[-1]
        assert "hf_" not in done.stderr
        return line

    assert "o/nothing: no such data set on http" in error("o/nothing")
    assert "A private one needs HF_TOKEN" in error("o/private")
    assert "no such data set" in error("o/private", token="hf_stranger")
    gated = error("o/gated")
    assert f"o/gated is gated: visit {hub.url}/datasets/o/gated, accept its conditions" in gated
    assert "set HF_TOKEN" in gated
    assert "o/gated is gated" in error("o/gated", token="hf_stranger")
    assert "refuses the token (HF_TOKEN)" in error("o/open", token="hf_wrong")
    assert "has no revision 'v2'; it has: main, v1.0" in error("o/open", "--revision", "v2")
    assert "disabled" in error("o/off")
    assert "is not a kind of source" in error("ftp://x/y.jsonl")
    for name in ("gated", "private"):
        run("import-dataset", f"o/{name}", "--no-standardize", token=TOKEN)
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text(TOKEN + "\n")
    run("import-dataset", "o/gated", "--no-standardize", "--dataset", "by-file")


def test_too_many_requests_are_waited_out(run, hub, bucket):
    hub.commit("datasets/o/n", {"a.parquet": rows_of("a.parquet")})
    hub.fail(429, count=2, retry_after="1", where="hub")
    hub.fail(429, count=1, retry_after="1", where="cdn")
    begin = time.monotonic()
    run("import-dataset", "o/n", "--no-standardize")
    assert time.monotonic() - begin >= 3
    assert len(raw_rows(bucket, "o/n")) == 2
    hub.fail(429, count=10**6)
    done = run("import-dataset", "o/n", "--fresh", code=1, env={"LORRY_HTTP_ATTEMPTS": "3"})
    assert "429" in done.stderr and "the Hub limits requests" in done.stderr


def test_the_token_is_for_the_hub_alone(run, hub, bucket):
    rows = [{"text": "x" * 50, "n": i} for i in range(5000)]
    hub.commit("datasets/o/private", {"train.parquet": parquet(rows, row_group_size=500)})
    hub.set("datasets/o/private", private=True)
    hub.add_token(TOKEN, repos=["o/private"])
    hub.url_lifetime = 0.02  # signed URLs expire in the middle, and new ones are asked for
    run("import-dataset", "o/private", "--no-standardize", token=TOKEN)
    assert raw_rows(bucket, "o/private") == rows
    assert hub.requests(where="cdn")
    assert all(r["authorization"] is None for r in hub.requests(where="cdn"))
    assert all(r["authorization"] == f"Bearer {TOKEN}" for r in hub.requests(where="hub"))
    everything = b"".join(p.read_bytes() for p in bucket.rglob("*") if p.is_file())
    assert TOKEN.encode() not in everything


FAULTS = ["500", "503", "429", "reset", "truncate", "stall", "lie"]


@pytest.mark.parametrize("kind", FAULTS)
def test_an_import_survives_hundreds_of_faults(run, hub, bucket, kind):
    names = [f"data/train-{i:05}-of-00560.parquet" for i in range(560)]
    hub.commit("datasets/o/n", {n: encode(some_rows(6, 6 * i), "parquet") for i, n in enumerate(names)})
    count = 20 if kind == "stall" else 1000
    hub.fail(kind, count=count, probability=0.18, seconds=3)
    env = {"LORRY_HTTP_ATTEMPTS": "40", "LORRY_HTTP_STALL_SECONDS": "1"}
    run("import-dataset", "o/n", "--no-standardize", env=env, timeout=500)
    assert raw_rows(bucket, "o/n") == some_rows(3360)
    assert hub.injected >= (20 if kind == "stall" else 200)


def test_faults_that_never_stop_end_in_one_clear_error(run, hub, bucket):
    hub.commit("datasets/o/n", {"a.parquet": rows_of("a.parquet")})
    hub.fail("reset", count=10**6, where="cdn")
    done = run("import-dataset", "o/n", code=1, env={"LORRY_HTTP_ATTEMPTS": "3"})
    assert len(done.stderr.strip().splitlines()) <= 4
    hub.faults.clear()
    run("import-dataset", "o/n", "--no-standardize")


# ---- models --------------------------------------------------------------------------------------


def safetensors(tensors):
    """A file of float32 tensors, {name: number of values}."""
    header, data = {}, b""
    for name, count in tensors.items():
        begin = len(data)
        data += random.Random(name).randbytes(4 * count)
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def example_files():
    return {p.name: p.read_bytes() for p in EXAMPLE_MODEL.iterdir() if p.is_file()}


def sharded_model(values=300_000, shards=4):
    weights = {f"model-{i:05}-of-{shards:05}.safetensors": {f"t{i}": values} for i in range(1, shards + 1)}
    index = {"metadata": {}, "weight_map": {t: f for f, ts in weights.items() for t in ts}}
    content = {f: safetensors(ts) for f, ts in weights.items()}
    content["model.safetensors.index.json"] = json.dumps(index).encode()
    return {n: b for n, b in example_files().items() if not n.endswith(".safetensors")} | content


SNAPSHOT = """
    import json, sys, huggingface_hub
    print(json.dumps(huggingface_hub.snapshot_download(sys.argv[1])))
"""


def imported(bucket, model):
    digests = tree_digest(pathlib.Path(bucket) / "models" / model)
    digests.pop("info.json")
    return digests


def test_a_model_is_the_snapshots_bytes_and_no_more(run, hub, bucket, tmp_path):
    needed = sharded_model()
    useless = {"pytorch_model.bin": b"x", "consolidated.safetensors": b"x", "model.gguf": b"x"}
    useless |= {"onnx/model.onnx": b"x", "original/consolidated.00.pth": b"x", "tf_model.h5": b"x"}
    useless |= {"flax_model.msgpack": b"x", ".gitattributes": b"x", "figure.png": b"x"}
    commit = hub.commit("models/Qwen/Tiny-0.1B", needed | useless)
    done = json.loads(run("import-model", "Qwen/Tiny-0.1B", "--json").stdout)
    assert done["model"] == "Qwen/Tiny-0.1B" and done["files"] == len(needed)
    assert not hub.requests("gguf|pytorch|onnx|consolidated|original|h5")
    snapshot = python(hub, tmp_path / "home", SNAPSHOT, "Qwen/Tiny-0.1B")
    theirs = {name: digest for name, digest in tree_digest(snapshot).items() if name in needed}
    assert imported(bucket, "Qwen/Tiny-0.1B") == theirs
    info = json.loads((bucket / "models/Qwen/Tiny-0.1B/info.json").read_text())
    assert info["commit"] == commit and info["repository"] == "Qwen/Tiny-0.1B"
    assert {f["name"]: f["sha256"] for f in info["files"]} == theirs
    assert {f["name"]: f["bytes"] for f in info["files"]} == {n: len(b) for n, b in needed.items()}
    assert all(len(f["crc32c"]) == 8 for f in info["files"])
    before = len(hub.requests(where="cdn"))
    assert json.loads(run("import-model", "Qwen/Tiny-0.1B", "--json").stdout)["up_to_date"] is True
    assert len(hub.requests(where="cdn")) == before


def test_a_model_of_the_hub_is_checked_by_the_engine(run, hub, bucket, lorry_binary):
    if not (lorry_binary.parent / "liblorry_engine.so").exists():
        pytest.skip("the engine is not built")
    hub.commit("models/o/demo", example_files())
    engine = {"LORRY_ENGINE": str(lorry_binary.parent / "liblorry_engine.so")}
    run("import-model", "o/demo", env=engine)
    assert imported(bucket, "o/demo").items() >= {}.items()
    config = json.loads(example_files()["config.json"]) | {"num_hidden_layers": 99}
    hub.commit("models/o/demo", {"config.json": json.dumps(config)})
    done = run("import-model", "o/demo", "--model", "other", env=engine, code=1)
    assert "o/demo" in done.stderr and "/tmp" not in done.stderr


@pytest.mark.parametrize("kind", FAULTS)
def test_a_model_survives_faults(run, hub, bucket, kind):
    needed = sharded_model(values=3_000_000)
    hub.commit("models/o/m", needed)
    hub.fail(kind, count=10 if kind == "stall" else 150, probability=0.3, seconds=3)
    env = {"LORRY_HTTP_ATTEMPTS": "60", "LORRY_HTTP_STALL_SECONDS": "1"}
    run("import-model", "o/m", env=env, timeout=500)
    assert {n: (bucket / "models/o/m" / n).read_bytes() for n in needed} == needed
    assert hub.injected >= 3


def test_a_killed_model_import_goes_on(run, lorry, hub, bucket, tmp_path):
    needed = sharded_model(values=1_000_000, shards=8)
    hub.commit("models/o/m", needed)
    env = hub.environment(tmp_path / "home") | {"LORRY_ENGINE": "/nonexistent"}
    kills = 0
    hub.on_request = lambda request: time.sleep(0.02) if request["where"] == "cdn" else None
    for _ in range(20):
        process = lorry.start("import-model", "o/m", "--bucket", bucket, env=env)
        models = bucket / "models/o/m"
        have = len(list(models.glob("*.safetensors"))) if models.exists() else 0
        while process.poll() is None and len(list(models.glob("*.safetensors"))) < have + 2:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    assert kills >= 2 and (bucket / "models/o/m/info.json").exists()
    assert {n: (bucket / "models/o/m" / n).read_bytes() for n in needed} == needed
    assert sorted(p.name for p in (bucket / "models/o/m").iterdir()) == sorted([*needed, "info.json"])
    sent = sum(int(e) - int(b) + 1 for b, e in (re.findall(r"\d+", r["range"]) for r in hub.requests(where="cdn")))
    assert sent < 3 * sum(map(len, needed.values()))


def test_a_model_that_moves_is_updated_file_by_file(run, hub, bucket):
    needed = sharded_model()
    hub.commit("models/o/m", needed)
    run("import-model", "o/m")
    changed = json.loads(needed["config.json"]) | {"max_position_embeddings": 64}
    hub.commit("models/o/m", {"config.json": json.dumps(changed)})
    hub.log.clear()
    run("import-model", "o/m")
    assert json.loads((bucket / "models/o/m/config.json").read_text()) == changed
    fetched = sum(int(e) - int(b) + 1 for b, e in (re.findall(r"\d+", r["range"]) for r in hub.requests(where="cdn")))
    assert fetched < 4 * 300_000, "headers are looked at, weights are kept"


def test_bytes_that_are_not_the_hubs_are_refused(run, hub, bucket):
    hub.commit("models/o/m", sharded_model())
    entry = hub.repository("models/o/m").files(hub.repository("models/o/m").resolve("main"))
    blob = hub.repository("models/o/m").blob(entry["model-00002-of-00004.safetensors"])
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    done = run("import-model", "o/m", code=1)
    assert "model-00002-of-00004.safetensors" in done.stderr and "SHA-256" in done.stderr
    assert not (bucket / "models/o/m/info.json").exists()


def test_what_is_no_model_of_the_hub_is_said(run, hub):
    rest = {n: b for n, b in example_files().items() if not n.endswith(".safetensors")}
    hub.commit("models/o/bin", rest | {"pytorch_model.bin": b"x"})
    hub.commit("models/o/none", {"README.md": "# nothing"})
    hub.commit("models/o/gated", example_files())
    hub.set("models/o/gated", gated="auto")
    assert "weights in pytorch_model.bin are not supported" in run("import-model", "o/bin", code=1).stderr
    assert "has no config.json" in run("import-model", "o/none", code=1).stderr
    assert "no such model on" in run("import-model", "o/nowhere", code=1).stderr
    assert f"o/gated is gated: visit {hub.url}/o/gated" in run("import-model", "o/gated", code=1).stderr
    done = run("import-model", "o/bin", "--revision", "v3", code=1)
    assert "has no revision 'v3'; it has: main" in done.stderr
