"""What users get wrong: one clear line, the exit code of the promise, nothing half-written."""

import json
import shutil
import socket
import urllib.error

import pytest
from conftest import EXAMPLE_DATA, EXAMPLE_MODEL, on, tree_digest

FAILED, WRONG_USAGE = 1, 2


def complaint(done, *words):
    """Checks that stderr ends in at most two lines that hold each of `words`; returns them."""
    text = done.stderr.strip()
    tail = "\n".join(text.splitlines()[-2:])
    assert "terminate called" not in text and "Traceback" not in text and "at::" not in text
    for word in words:
        assert str(word) in tail, f"{word!r} is not in: {text}"
    return tail


def nothing_counts(bucket):
    """Whether no stage in the bucket claims to be complete and no temporary file is left."""
    left = [path for path in tree_digest(bucket)] if bucket.exists() else []
    return not [p for p in left if p.endswith("info.json") and p.count("/") > 0 and "dataset_info" not in p]


def test_a_broken_json_line_is_named(lorry, tmp_path, bucket):
    source = tmp_path / "rows.jsonl"
    good = json.dumps({"instruction": "a", "output": "b"})
    source.write_text(f'{good}\n{good}\n{{"instruction": "a", "output": \n{good}\n')
    done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", code=FAILED)
    complaint(done, "rows.jsonl", "3")
    assert nothing_counts(bucket)


def test_bad_rows_are_skipped_when_allowed_and_counted(lorry, tmp_path, bucket):
    source = tmp_path / "rows.jsonl"
    good = json.dumps({"instruction": "a", "output": "b"})
    source.write_text(f"{good}\nnot json\n{good}\n")
    verb = ("import-dataset", source, "--bucket", bucket, "--dataset", "d")
    done = lorry(*verb, "--skip-bad-rows", 1)
    assert "2" in done.stderr
    assert (bucket / "standardized" / "d" / "info.json").exists()


def test_a_data_set_without_a_known_column_says_which_it_has(lorry, tmp_path, bucket):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"colour": "red", "size": 3}) + "\n")
    done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", code=FAILED)
    complaint(done, "colour")
    assert not (bucket / "standardized" / "d" / "info.json").exists()


def test_a_missing_column_is_named(lorry, tmp_path, bucket):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"instruction": "a"}) + "\n")
    verb = ("import-dataset", source, "--bucket", bucket, "--dataset", "d", "--format", "alpaca")
    complaint(lorry(*verb, code=FAILED), "output")


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.csv", "empty.parquet"])
def test_an_empty_data_set_is_refused(lorry, tmp_path, bucket, name):
    source = tmp_path / name
    source.write_bytes(b"")
    done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", code=FAILED)
    complaint(done, name)
    assert nothing_counts(bucket)


def test_a_source_that_is_not_there_is_named(lorry, tmp_path, bucket):
    source = tmp_path / "nowhere.jsonl"
    done = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", code=FAILED)
    complaint(done, "nowhere.jsonl")


def model_copy(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(EXAMPLE_MODEL, model)
    return model


def import_model(lorry, model, bucket, code=FAILED):
    return lorry("import-model", model, "--bucket", bucket, "--model", "m", code=code)


def test_a_directory_that_is_no_model_is_refused(lorry, tmp_path, bucket):
    (tmp_path / "model").mkdir()
    complaint(import_model(lorry, tmp_path / "model", bucket), "config.json")
    assert nothing_counts(bucket)


def test_a_truncated_checkpoint_is_refused(lorry, tmp_path, bucket):
    model = model_copy(tmp_path)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    complaint(import_model(lorry, model, bucket), "model.safetensors")
    assert nothing_counts(bucket)


def test_an_unknown_architecture_is_refused_by_name(lorry, tmp_path, bucket):
    model = model_copy(tmp_path)
    config = json.loads((model / "config.json").read_text())
    config |= {"architectures": ["HyenaForCausalLM"], "model_type": "hyena"}
    (model / "config.json").write_text(json.dumps(config))
    complaint(import_model(lorry, model, bucket), "HyenaForCausalLM")


def test_a_missing_tensor_is_named(lorry, tmp_path, bucket):
    from safetensors.torch import load_file, save_file

    model = model_copy(tmp_path)
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    complaint(import_model(lorry, model, bucket), "model.layers.3.mlp.up_proj.weight")


def test_a_bucket_that_cannot_be_written_is_named(lorry, tmp_path):
    # A file in the way stops root as well.
    blocked = tmp_path / "file"
    blocked.write_text("")
    verb = ("import-dataset", EXAMPLE_DATA, "--bucket", blocked / "bucket", "--dataset", "d")
    complaint(lorry(*verb, code=FAILED), blocked)


def test_a_scheme_that_no_store_has_is_refused(lorry):
    done = lorry("status", "--bucket", "ftp://somewhere", code=None)
    assert done.returncode in (FAILED, WRONG_USAGE)
    complaint(done, "ftp")


def test_a_stage_before_its_input_says_what_to_run_first(lorry, bucket):
    complaint(lorry("train", *on(bucket), code=FAILED), "pretokenize")


def test_an_unknown_flag_is_wrong_usage(lorry, bucket):
    done = lorry("train", *on(bucket), "--learning-rat", "1", code=WRONG_USAGE)
    complaint(done, "--learning-rat")


@pytest.mark.parametrize(
    "flag, value",
    [("--learning-rate", "fast"), ("--batch-size", "0"), ("--batch-size", "-1"), ("--lora-r", "0")],
)
def test_a_value_out_of_range_is_wrong_usage(lorry, prepared, flag, value):
    done = lorry("train", *on(prepared), flag, value, code=WRONG_USAGE)
    complaint(done, flag)


def test_an_unknown_verb_is_wrong_usage(lorry):
    complaint(lorry("trane", code=WRONG_USAGE), "trane")


def test_a_port_in_use_is_named(lorry, prepared):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        verb = ("serve", "--bucket", prepared, "--model", "demo", "--port", port)
        complaint(lorry(*verb, code=FAILED), port)


def test_a_prompt_longer_than_the_context_is_a_400_and_the_server_goes_on(prepared, serve):
    with serve("--bucket", prepared, "--model", "demo") as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.answer("demo", "word " * 5000)
        assert caught.value.code == 400
        error = json.loads(caught.value.read())["error"]
        assert "2048" in error["message"]
        assert server.answer("demo", "Who are you?")
