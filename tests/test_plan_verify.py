"""`lorry plan` against what the training then reports, and `lorry verify` against damage of every
kind in every stage."""

import json
import os

import pytest
from conftest import import_example, on, tree_digest

FAILED = 1
TRAIN = ("--learning-rate", "1e-3", "--max-length", 96)


@pytest.mark.parametrize(
    "flags",
    [("--epochs", 1), ("--epochs", "1.5", "--batch-size", 3), ("--packing",), ("--max-steps", 5)],
)
def test_a_plan_says_what_training_then_reports(lorry, bucket, flags):
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    plan = lorry.json("plan", *on(bucket), *TRAIN, *flags, "--json")
    assert plan["exact"] is True
    report = lorry.json("train", *on(bucket), *TRAIN, *flags, "--json", timeout=600)
    info = json.loads((bucket / "done" / "demo" / "identity" / "info.json").read_text())
    assert plan["train"]["steps"] == report["steps"]
    assert plan["train"]["tokens"] == report["tokens"]
    assert plan["train"]["trained_parameters"] == info["trained_parameters"]
    assert plan["train"]["cut_examples"] == info["examples_cut"] > 0
    adapter = bucket / "done" / "demo" / "identity" / "lora_model" / "adapter_model.safetensors"
    assert abs(plan["train"]["bytes"]["adapter"] - adapter.stat().st_size) < 20_000


def test_a_plan_before_the_tokens_are_there_estimates_them(lorry, bucket):
    import_example(lorry, bucket)
    before = lorry.json("plan", *on(bucket), "--json")
    assert before["exact"] is False and before["train"]["estimated"] is True
    tokens = lorry.json("pretokenize", *on(bucket), "--json")["tokens"]
    after = lorry.json("plan", *on(bucket), "--json")
    assert [stage["state"] for stage in after["stages"]] == ["done"] * 3
    assert after["stages"][2]["tokens"] == tokens == before["stages"][2]["tokens"]
    assert before["train"]["steps"] == after["train"]["steps"]
    text = lorry("plan", *on(bucket)).stdout
    assert "steps" in text and "memory" in text


def test_a_plan_warns_of_what_training_warns_of(lorry, bucket):
    import_example(lorry, bucket)
    few = ("--max-steps", 1)
    warning = "the only step is within the warm-up of 5: the learning rate reaches 0 of 0.0002"
    assert warning in lorry("plan", *on(bucket), *few).stdout  # estimated
    lorry("pretokenize", *on(bucket))
    assert warning in lorry("plan", *on(bucket), *few).stdout
    enough = (*few, "--warmup-steps", 0)
    assert lorry.json("plan", *on(bucket), *enough, "--json")["train"]["warnings"] == []
    assert "warm-up" not in lorry("train", *on(bucket), *enough).stderr
    (refusal,) = lorry.json("plan", *on(bucket), "--max-steps", 2, "--warmup-steps", 0, "--json")["train"]["warnings"]
    assert "max_steps was 1, is 2" in refusal and "--replace" in refusal
    assert lorry.json("plan", *on(bucket), *enough, "--json")["train"]["warnings"] == []


def test_a_plan_for_a_gpu_needs_none(lorry, prepared):
    plan = lorry.json("plan", *on(prepared), "--device", "cuda", "--json")
    assert plan["train"]["memory"]["total"] > plan["train"]["memory"]["weights"]


def test_a_plan_without_a_model_says_what_to_run(lorry, bucket):
    done = lorry("plan", "--bucket", bucket, code=FAILED)
    assert "bucket" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(lorry, tmp_path_factory):
    """A bucket in which every stage is done; tests damage it, mend it, and leave it whole."""
    bucket = tmp_path_factory.mktemp("finished") / "bucket"
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    lorry("train", *on(bucket), *TRAIN, "--max-steps", 2, timeout=600)
    return bucket


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


MENDS = {
    "raw/identity/0/data-00000.arrow": "import-dataset",
    "standardized/identity/0/data-00000.arrow": "standardize",
    "model-ready/demo/identity/0/data-00000.arrow": "pretokenize",
    "models/demo/model.safetensors": "import-model",
    "done/demo/identity/fused/model.safetensors": "train",
    "done/demo/identity/lora_model/adapter_model.safetensors": "train",
}


def test_verify_finds_nothing_in_a_whole_bucket(lorry, finished):
    report = lorry.json("verify", "--bucket", finished, "--json")
    assert report["damaged"] == [] and report["unchecked"] == 0
    assert report["files"] >= len(MENDS)


@pytest.mark.parametrize("damage", [flip, cut, os.remove])
@pytest.mark.parametrize("name", MENDS)
def test_verify_names_a_damaged_file_and_what_mends_it(lorry, finished, name, damage):
    path = finished / name
    whole = path.read_bytes()
    try:
        damage(path)
        done = lorry("verify", "--bucket", finished, "--json", code=FAILED)
        (found,) = json.loads(done.stdout)["damaged"]
        assert found["path"] == name
        assert f"lorry {MENDS[name]} " in found["mend"]
        assert f"lorry {MENDS[name]} " in done.stderr
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("stage", ["raw", "standardized", "model-ready/demo"])
def test_a_repaired_stage_is_made_again_with_the_same_bytes(lorry, finished, stage):
    before = tree_digest(finished / stage)
    name = f"{stage}/identity/0/data-00000.arrow"
    flip(finished / name)
    done = lorry("verify", "--bucket", finished, "--repair", code=FAILED)
    command = MENDS[name]
    assert f"lorry {command} " in done.stderr
    if command == "import-dataset":
        import_example(lorry, finished)
    elif command == "standardize":
        lorry("standardize", "--bucket", finished, "--dataset", "identity", *sets())
    else:
        lorry("pretokenize", *on(finished))
    assert tree_digest(finished / stage) == before
    assert lorry.json("verify", "--bucket", finished, "--json")["damaged"] == []


def sets():
    return ("--set", "name=Lorry", "--set", "author=the lorry project")
