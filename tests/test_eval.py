"""`lorry eval` beside `transformers` and `peft`: the loss within 1e-4, greedy answers token by token."""

import json

import datasets
import pytest
import torch
from conftest import EXAMPLE_MODEL, import_example, on
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

FLOAT = ("--dtype", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def bucket(lorry, tmp_path_factory):
    """The example imported, tokenized, and trained for a few steps at a rate that shows."""
    bucket = tmp_path_factory.mktemp("eval") / "bucket"
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    lorry("train", *on(bucket), "--max-steps", 8, "--learning-rate", "5e-3", *FLOAT)
    return bucket


def base_model():
    return AutoModelForCausalLM.from_pretrained(EXAMPLE_MODEL, dtype=torch.float32).eval()


def tuned_model(adapter):
    return PeftModel.from_pretrained(base_model(), adapter).eval()


def reference_loss(model, bucket, max_rows=None, max_length=4096):
    """Mean over all target tokens, example by example: (loss, examples, targets)."""
    rows = datasets.load_from_disk(str(bucket / "model-ready/demo/identity/0"))
    total, examples, targets = 0.0, 0, 0
    for row in rows.select(range(max_rows or len(rows))):
        ids = torch.tensor(row["input_ids"][:max_length])
        mask = torch.tensor(row["assistant_masks"][:max_length], dtype=torch.bool)
        if not mask[1:].any():
            continue
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")[mask[1:]]
        total += losses.double().sum().item()
        examples += 1
        targets += len(losses)
    return total / targets, examples, targets


def conversations(bucket, count):
    rows = datasets.load_from_disk(str(bucket / "standardized/identity/0")).select(range(count))
    return [
        [{k: v for k, v in message.items() if v is not None} for message in row["conversations"]]
        for row in rows
    ]


def greedy(model, messages, max_new_tokens):
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE_MODEL)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    out = model.generate(
        input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=max_new_tokens
    )
    return tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)


def test_losses_of_base_and_fine_tuned_equal_peft(lorry, bucket):
    report = lorry.json("eval", *on(bucket), *FLOAT, "--json")
    assert [model["name"] for model in report["models"]] == ["demo", "demo/identity"]
    models = [base_model(), tuned_model(bucket / "done/demo/identity/lora_model")]
    for got, model in zip(report["models"], models):
        loss, examples, targets = reference_loss(model, bucket)
        assert got["loss"] == pytest.approx(loss, abs=1e-4)
        assert got["perplexity"] == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-3)
        assert (report["examples"], report["target_tokens"]) == (examples, targets)
    assert report["models"][1]["loss"] < report["models"][0]["loss"] - 0.1


def test_rows_and_lengths_are_limited_as_in_training(lorry, bucket):
    rows = datasets.load_from_disk(str(bucket / "model-ready/demo/identity/0"))
    starts = sorted(row["assistant_masks"].index(1) for row in rows.select(range(7)))
    length = starts[3] + 3  # cuts all seven, some before their first target
    limits = ("--max-rows", 7, "--max-length", length, "--base")
    report = lorry.json("eval", *on(bucket), *FLOAT, *limits, "--json")
    loss, examples, targets = reference_loss(base_model(), bucket, 7, length)
    assert len(report["models"]) == 1
    assert report["models"][0]["loss"] == pytest.approx(loss, abs=1e-4)
    assert (report["examples"], report["target_tokens"]) == (examples, targets)
    assert report["empty_examples"] == 7 - examples
    assert report["cut_examples"] > 0


def test_greedy_answers_equal_generate(lorry, bucket):
    report = lorry.json(
        "eval", *on(bucket), *FLOAT, "--max-rows", 1, "--generate", 3, "--max-new-tokens", 20, "--json"
    )
    models = {
        "demo": base_model(),
        "demo/identity": tuned_model(bucket / "done/demo/identity/lora_model"),
    }
    for got, messages in zip(report["answers"], conversations(bucket, 3), strict=True):
        assert got["reference"] == messages[-1]["content"]
        assert got["messages"] == messages[:-1]
        for name, model in models.items():
            assert got["answers"][name] == greedy(model, messages[:-1], 20)


def test_any_adapter_of_peft_is_evaluated(lorry, bucket, tmp_path):
    torch.manual_seed(1)
    model = get_peft_model(base_model(), LoraConfig(r=3, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(tmp_path / "adapter")
    report = lorry.json(
        "eval", *on(bucket), *FLOAT, "--max-rows", 5, "--adapter", tmp_path / "adapter", "--json"
    )
    loss, _, _ = reference_loss(model.eval(), bucket, 5)
    assert report["models"][1]["name"] == str(tmp_path / "adapter")
    assert report["models"][1]["loss"] == pytest.approx(loss, abs=1e-4)


def test_the_text_shows_the_gain(lorry, bucket):
    out = lorry("eval", *on(bucket), *FLOAT, "--max-rows", 3, "--generate", 1).stdout
    lines = out.splitlines()
    assert lines[0].startswith("identity: 3 examples, ")
    assert any(line.startswith("demo  ") and " loss " in line for line in lines)
    assert any(line.startswith("demo/identity") and " perplexity " in line for line in lines)
    assert any(line.strip().startswith("reference: ") for line in lines)


def test_clear_errors(lorry, bucket, tmp_path):
    def refused(*args, code=1):
        return lorry("eval", *args, code=code).stderr.strip()

    message = refused(*on(bucket), "--run-name", "nothing")
    assert "done/demo/identity@nothing" in message and "lorry train" in message
    message = refused(*on(bucket), "--max-length", 2)
    assert "target" in message and "--max-length 2" in message
    message = refused(*on(bucket), "--adapter", tmp_path / "nowhere")
    assert "nowhere" in message
    assert "--base" in refused(*on(bucket), "--base", "--run-name", "x", code=2)
    message = refused("--bucket", bucket, "--model", "demo", "--dataset", "other")
    assert "other" in message
    for text in (message,):
        assert len(text.splitlines()) == 1


def test_data_that_is_not_tokenized_is_named(lorry, tmp_path):
    bucket = tmp_path / "bucket"
    import_example(lorry, bucket)
    message = lorry("eval", *on(bucket), code=1).stderr
    assert "model-ready/demo/identity" in message and "lorry pretokenize" in message


def test_json_holds_everything(lorry, bucket):
    report = lorry.json("eval", *on(bucket), "--max-rows", 2, "--base", "--json")
    assert json.dumps(report)
    assert {"model", "dataset", "examples", "target_tokens", "models", "answers"} <= set(report)
