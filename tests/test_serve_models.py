"""Which models `lorry serve` serves, and how long their texts may be."""

import gzip
import json
import shutil
import urllib.error
import urllib.request

import pytest
from conftest import EXAMPLE_MODEL


def example_with(directory, **fields):
    """The example model with other fields in its config; None takes one out."""
    shutil.copytree(EXAMPLE_MODEL, directory)
    config = json.loads((directory / "config.json").read_text()) | fields
    config = {key: value for key, value in config.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def trained(lorry, tmp_path_factory):
    """The bucket of a model of 64 positions, trained on rows that are longer."""
    directory = tmp_path_factory.mktemp("trained")
    model = example_with(directory / "model", max_position_embeddings=64)
    turn = [{"role": "user", "content": "Count. " * 60}, {"role": "assistant", "content": "one two"}]
    (directory / "rows.jsonl").write_text((json.dumps({"messages": turn}) + "\n") * 8)
    where = ("--bucket", directory / "bucket")
    lorry("import-model", model, *where, "--model", "m")
    lorry("import-dataset", directory / "rows.jsonl", *where)
    lorry("pretokenize", *where)
    done = lorry("train", *where, "--max-steps", 2)
    return directory / "bucket", done.stderr


def test_rows_longer_than_the_context_are_said_once_before_training(trained):
    _, log = trained
    (line,) = [line for line in log.splitlines() if "context" in line]
    assert "8 examples" in line and "context is 64" in line and "--max-length 64" in line


def test_a_merged_model_is_served_and_talked_to_without_its_base(lorry, serve, trained, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(trained[0], bucket)
    shutil.rmtree(bucket / "models")
    where = ("--bucket", bucket, "--model", "m", "--dataset", "rows")
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    with serve(*where) as server:
        assert [m["id"] for m in server.get("/v1/models")["data"]] == ["m/rows"]
        assert server.post("/v1/chat/completions", body | {"model": "m/rows"})["model"] == "m/rows"
    lorry("chat", *where, "--prompt", "hi", "--max-tokens", 2)
    base = lorry("serve", *where[:4], "--base", "--port", 0, code=1)
    assert "there is no model 'm'" in base.stderr


def test_a_context_that_rope_scaling_made_longer_can_be_used(lorry, serve, tmp_path):
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    fields = {"rope_parameters": None, "rope_theta": 10000.0, "max_position_embeddings": 64}
    model = example_with(tmp_path / "model", **fields, rope_scaling=scaling)
    where = ("--bucket", tmp_path / "bucket", "--model", "m")
    lorry("import-model", model, *where)
    with serve(*where, "--base", "--max-model-len", 256) as server:
        assert server.get("/v1/models")["data"][0]["max_model_len"] == 256
        answer = server.post("/v1/completions", {"prompt": [65] * 200, "max_tokens": 4})
        assert answer["usage"]["prompt_tokens"] == 200
    too_long = lorry("serve", *where, "--base", "--max-model-len", 257, "--port", 0, code=2)
    assert "the model's context is 256 tokens" in too_long.stderr


def test_a_compressed_body_is_read_and_an_unknown_coding_is_named(lorry, serve, trained):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()

    def post(server, data, encoding):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        request = urllib.request.Request(server.url + "/v1/chat/completions", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    with serve("--bucket", trained[0], "--model", "m", "--base") as server:
        assert post(server, gzip.compress(body), "gzip")[0] == 200
        code, headers, text = post(server, body, "br")
        assert code == 415 and "'br'" in text and headers["Accept-Encoding"] == "gzip, deflate, zstd"
        code, _, text = post(server, gzip.compress(b" " * (40 << 20)), "gzip")
        assert code == 413 and "decompressed" in text
        assert post(server, body, "gzip")[0] == 400
