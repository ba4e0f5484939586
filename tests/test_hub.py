"""lorry, `datasets` and `huggingface_hub` against the same small Hub (hub_server.py).

That the real clients work against it shows that the server is faithful; that lorry brings the same
files, rows and bytes as they do is what is tested.
"""

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
