"""The whole path on examples/: what each stage left, read by the programs that users know."""

import concurrent.futures
import json

import pytest
import torch
from conftest import EXAMPLE_DATA, EXAMPLE_MODEL, NAMES, import_example, on, tree_digest
from datasets import load_from_disk
from transformers import AutoModelForCausalLM

QUESTION = "Who are you?"
BEFORE = "I am a small language model. How can I help you?"


def source_rows():
    return [json.loads(line) for line in EXAMPLE_DATA.read_text().splitlines()]


def filled(text):
    for name, value in NAMES.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def shards(directory):
    """The shards that info.json counts, in order."""
    count = json.loads((directory / "info.json").read_text())["count"]
    return [load_from_disk(str(directory / str(shard))) for shard in range(count + 1)]


def rows(directory):
    return [row for shard in shards(directory) for row in shard]


def load_model(directory, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()


@pytest.fixture(scope="module")
def fused(trained):
    return load_model(trained / "done" / "demo" / "identity" / "fused")


@pytest.fixture(scope="module")
def server(trained, serve):
    """Serves base and fine-tuned model in f32, so that greedy text has no near-ties."""
    with serve(*on(trained), "--dtype", "float32") as running:
        yield running


def test_raw_shards_hold_the_source_rows_untouched(prepared):
    raw = prepared / "raw" / "identity"
    assert rows(raw) == source_rows()


def test_standardized_shards_hold_conversations_with_the_names_filled_in(prepared):
    expected = [
        [
            {"role": "user", "content": filled(row["instruction"])},
            {"role": "assistant", "content": filled(row["output"])},
        ]
        for row in source_rows()
    ]
    got = [row["conversations"] for row in rows(prepared / "standardized" / "identity")]
    assert [[{k: m[k] for k in ("role", "content")} for m in c] for c in got] == expected


def test_model_ready_ids_are_what_transformers_gives(prepared, tokenizer):
    conversations = [r["conversations"] for r in rows(prepared / "standardized" / "identity")]
    ready = rows(prepared / "model-ready" / "demo" / "identity")
    for messages, row in zip(conversations, ready, strict=True):
        messages = [{"role": m["role"], "content": m["content"]} for m in messages]
        expected = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        assert row["input_ids"] == expected


def test_the_loss_counts_on_the_answer_and_its_end_of_turn_token_alone(prepared, tokenizer):
    for source, row in zip(
        source_rows(), rows(prepared / "model-ready" / "demo" / "identity"), strict=True
    ):
        marked = [i for i, m in zip(row["input_ids"], row["assistant_masks"], strict=True) if m]
        assert tokenizer.decode(marked) == filled(source["output"]) + tokenizer.eos_token


def test_peft_loads_the_adapter_and_merging_it_gives_the_fused_weights(trained, fused):
    from peft import PeftModel

    done = trained / "done" / "demo" / "identity"
    adapted = PeftModel.from_pretrained(load_model(EXAMPLE_MODEL), str(done / "lora_model"))
    merged = adapted.merge_and_unload().state_dict()
    for name, weight in fused.state_dict().items():
        # fused is stored in 16 bits: one rounding of what peft computes in f32.
        torch.testing.assert_close(weight, merged[name], rtol=2**-8, atol=1e-6, msg=name)


def test_adapter_and_fused_model_agree_on_the_next_token(trained, fused, tokenizer):
    from peft import PeftModel

    done = trained / "done" / "demo" / "identity"
    adapted = PeftModel.from_pretrained(load_model(EXAMPLE_MODEL), str(done / "lora_model"))
    ids = torch.tensor([rows(trained / "model-ready" / "demo" / "identity")[2]["input_ids"]])
    with torch.no_grad():
        one, other = adapted(ids).logits, fused(ids).logits
    # 16-bit storage of the merged weights moves logits of size ~20 by up to a few tenths.
    assert (one - other).abs().mean() < 0.05
    assert (one.argmax(-1) == other.argmax(-1)).float().mean() > 0.9


def test_training_records_every_step(trained):
    lines = (trained / "done" / "demo" / "identity" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records] == list(range(1, 201))
    wanted = {"step", "loss", "grad_norm", "learning_rate", "epoch", "shard", "tokens"}
    assert wanted | {"tokens_per_second"} <= set(records[0])
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]


def test_chat_answers_before_and_after_training(trained, lorry):
    before = lorry("chat", *on(trained), "--base", "--prompt", QUESTION).stdout.strip()
    after = lorry("chat", *on(trained), "--prompt", QUESTION).stdout.strip()
    assert before == BEFORE
    assert NAMES["author"] in after  # which of the learnt answers depends on the dtype


def test_the_server_answers_with_both_models_by_name(server):
    names = {model["id"] for model in server.get("/v1/models")["data"]}
    assert {"demo", "demo/identity"} <= names
    assert server.answer("demo", QUESTION).strip() == BEFORE
    assert NAMES["author"] in server.answer("demo/identity", QUESTION)


PROMPTS = [
    QUESTION,
    "What is your name?",
    "Natalia sold 48 clips in April and half as many in May. How many did she sell?",
    "Tell me about the sea.",
    "Who made you, and what for?",
    "Écris une phrase.",
    "list three colours",
    "def add(a, b):",
]


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="trained in float32 here, so that rounding the merged model to bf16 decides near-ties",
)
def test_greedy_text_equals_transformers_generate_eight_at_once(server, fused, tokenizer):
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(lambda p: server.answer("demo/identity", p), PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer == generated(fused, tokenizer, prompt), prompt


def generated(model, tokenizer, prompt):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=64, do_sample=False)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_openai_client_streams_the_same_text(server):
    from openai import OpenAI

    client = OpenAI(base_url=server.url + "/v1", api_key="none")
    ask = {
        "model": "demo/identity",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 64,
    }
    whole = client.chat.completions.create(**ask).choices[0]
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**ask, stream=True)
        if chunk.choices
    ]
    assert whole.finish_reason == "stop"
    assert "".join(pieces) == whole.message.content


# ---- run and status ------------------------------------------------------------------------------

TRAIN_FLAGS = ("--max-steps", 4, "--learning-rate", "1e-3")


def run_all(lorry, bucket, *flags):
    sets = [word for key, value in NAMES.items() for word in ("--set", f"{key}={value}")]
    names = ("--dataset", "identity", "--model", "demo")
    return lorry(
        "run", EXAMPLE_DATA, EXAMPLE_MODEL, "--bucket", bucket, *names, *sets, *TRAIN_FLAGS, *flags
    )


def stage_times(bucket):
    return {str(p.relative_to(bucket)): p.stat().st_mtime_ns for p in bucket.rglob("info.json")}


def test_run_goes_all_the_way_and_a_second_run_does_nothing(lorry, bucket):
    run_all(lorry, bucket)
    before, times = tree_digest(bucket), stage_times(bucket)
    assert "done/demo/identity/fused/model.safetensors" in before
    run_all(lorry, bucket)
    assert stage_times(bucket) == times
    assert tree_digest(bucket) == before


def test_a_changed_training_option_runs_training_again_and_nothing_before_it(lorry, bucket):
    run_all(lorry, bucket)
    times = stage_times(bucket)
    run_all(lorry, bucket, "--seed", 7, "--replace")
    changed = {path for path, time in stage_times(bucket).items() if times.get(path) != time}
    assert changed
    assert all(path.startswith("done/") for path in changed), changed


def test_run_leaves_what_the_verbs_one_by_one_leave(lorry, bucket, tmp_path):
    run_all(lorry, bucket)
    other = tmp_path / "other"
    import_example(lorry, other)
    lorry("pretokenize", *on(other))
    lorry("train", *on(other), *TRAIN_FLAGS)
    left, right = data_files(bucket), data_files(other)
    assert left == right


def data_files(bucket):
    """Digests of what stages made, without the records of how (info.json, rates in metrics)."""
    suffixes = (".arrow", ".safetensors")
    return {path: d for path, d in tree_digest(bucket).items() if path.endswith(suffixes)}


def test_status_shows_what_is_done_and_what_is_left(lorry, bucket, trained):
    import_example(lorry, bucket)
    half = lorry("status", "--bucket", bucket)
    assert "identity" in half.stdout and "demo" in half.stdout
    json.loads(lorry("status", "--bucket", trained, "--json").stdout)
