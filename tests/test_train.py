"""Training beside `peft`, `transformers` and torch.optim on small random checkpoints.

Runs build/.../lorry_train_probe ($LORRY_BUILD, default build/release) on model-ready shards that
`datasets` wrote. Tolerances are the project's promise: in float32 every step's loss within 1e-4 and
the final weights within 1e-3 relative.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import peak_rss, tree_digest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")
from safetensors.torch import load_file, save_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release"))
PROBE = BUILD / "lorry_train_probe"
pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SIZES = dict(
    vocab_size=131,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.1,
)
LONGROPE = dict(
    rope_type="longrope",
    rope_theta=1e4,
    partial_rotary_factor=0.75,
    short_factor=[1.0 + 0.1 * i for i in range(6)],
    long_factor=[1.5 + i for i in range(6)],
    original_max_position_embeddings=256,
)
NEXT = dict(
    rope_type="yarn",
    rope_theta=1e4,
    factor=4.0,
    original_max_position_embeddings=8,
    llama_4_scaling_beta=0.1,
)
MULTIPLIERS = dict(
    embedding_multiplier=8.0,
    attention_multiplier=0.125,
    residual_multiplier=0.4,
    logits_scaling=2.0,
)
GRANITE4 = dict(
    num_local_experts=0,
    shared_intermediate_size=72,
    position_embedding_type="rope",
    layer_types=["full_attention"] * 2,
    mamba_n_heads=4,
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2)
LATENT = dict(
    num_key_value_heads=4,
    kv_lora_rank=16,
    qk_nope_head_dim=12,
    qk_rope_head_dim=8,
    v_head_dim=20,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    first_k_dense_replace=1,
)
LATENT_ATTENTION = ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
MODELS = {
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True)),
    "llama": ("Llama", dict(tie_word_embeddings=False)),
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True)),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=None)),
    "gemma2": ("Gemma2", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=7)),
    "gemma3": ("Gemma3Text", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window_pattern=2, sliding_window=7)),
    "phi3": ("Phi3", dict(pad_token_id=0, sliding_window=9)),
    "phi4-mini": ("Phi3", dict(pad_token_id=0, rope_parameters=LONGROPE, original_max_position_embeddings=256)),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", dict(sliding_window=7, layer_types=["full_attention", "sliding_attention"])),
    "smollm3": ("SmolLM3", dict(pad_token_id=0, no_rope_layer_interval=2)),
    "granite": ("Granite", MULTIPLIERS),
    "granite4": ("GraniteMoeHybrid", dict(GRANITE4, **MULTIPLIERS)),
    "ministral": ("Ministral", dict(head_dim=16, sliding_window=7, layer_types=["full_attention", "sliding_attention"])),
    "ministral3": ("Ministral3", dict(head_dim=16, rope_parameters=NEXT)),
    "qwen3-moe": ("Qwen3Moe", dict(EXPERTS, head_dim=16, moe_intermediate_size=32)),
    "mixtral": ("Mixtral", dict(num_local_experts=4)),
    "gpt-oss": ("GptOss", dict(head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=7)),
    "deepseek-v2": ("DeepseekV2", dict(LATENT, q_lora_rank=None)),
    "deepseek-v3": ("DeepseekV3", dict(LATENT, q_lora_rank=24, n_group=2, topk_group=1)),
}
# Modules with an adapter; peft treats experts and routers as parameters and not as linear maps.
TARGETS_OF = {
    "qwen3-moe": ATTENTION,
    "mixtral": ATTENTION,
    "gpt-oss": ATTENTION,
    "deepseek-v2": LATENT_ATTENTION,
    "deepseek-v3": LATENT_ATTENTION,
}
BASE_OPTIONS = dict(learning_rate=1e-2, warmup_steps=3, batch_size=2, gradient_accumulation_steps=2)


def make_model(kind, directory, dtype=torch.float32, **options):
    family, extra = MODELS[kind]
    torch.manual_seed(1)
    config = getattr(transformers, family + "Config")(**{**SIZES, **extra, **options})
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    model.save_pretrained(directory)
    (directory / "info.json").write_text(json.dumps({"source": kind}))


def make_rows(n, seed=0, longest=40):
    """Random conversations: a prompt whose mask is 0, an answer whose mask is 1, sometimes twice."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    rows = []
    for _ in range(n):
        ids, mask = [], []
        for _ in range(draw(1, 3)):
            for value in (0, 1):
                length = draw(2, longest // 4)
                ids += [draw(0, 131) for _ in range(length)]
                mask += [value] * length
        rows.append({"input_ids": ids, "assistant_masks": mask})
    return rows


def make_data(bucket, shards, model="m", dataset="d"):
    features = datasets.Features(
        input_ids=datasets.List(datasets.Value("int32")),
        assistant_masks=datasets.List(datasets.Value("int8")),
    )
    root = bucket / "model-ready" / model / dataset
    for i, rows in enumerate(shards):
        columns = {k: [row[k] for row in rows] for k in features}
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(root / str(i)))
    (root / "info.json").write_text(json.dumps({"count": len(shards) - 1}))


def make_adapter(bucket, directory, r=4, alpha=8, targets="all-linear", **options):
    """A PEFT adapter whose B is not zero, so that everything has a gradient from the first step."""
    base = transformers.AutoModelForCausalLM.from_pretrained(bucket / "models/m")
    torch.manual_seed(2)
    config = peft.LoraConfig(
        r=r, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM", lora_dropout=0, **options
    )
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    model.save_pretrained(directory)


def command(bucket, **options):
    options = dict(bucket=bucket, model="m", dataset="d", device="cpu") | options
    words = []
    for key, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"{key}={int(v) if isinstance(v, bool) else v}" for v in values]
    return [str(PROBE), *words]


def train(bucket, code=0, **options):
    done = subprocess.run(command(bucket, **options), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def metrics(bucket):
    lines = (bucket / "done/m/d/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_rate(lines):
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


@pytest.fixture
def bucket(tmp_path):
    make_model("qwen2", tmp_path / "bucket/models/m")
    make_data(tmp_path / "bucket", [make_rows(30, 1), make_rows(23, 2)])
    return tmp_path / "bucket"


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        pad = width - len(row["input_ids"])
        labels = [i if m else -100 for i, m in zip(row["input_ids"], row["assistant_masks"])]
        batch["input_ids"].append(row["input_ids"] + [0] * pad)
        batch["attention_mask"].append([1] * len(row["input_ids"]) + [0] * pad)
        batch["labels"].append(labels + [-100] * pad)
    return {key: torch.tensor(value) for key, value in batch.items()}


def trainer_losses(model, rows, tmp_path, steps, **changes):
    """Losses, norms and rates of `transformers`' Trainer in data order; the model is trained."""
    o = BASE_OPTIONS | changes
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"),
        per_device_train_batch_size=o["batch_size"],
        gradient_accumulation_steps=o["gradient_accumulation_steps"],
        max_steps=steps,
        num_train_epochs=o.get("epochs", 1),
        learning_rate=o["learning_rate"],
        lr_scheduler_type=o.get("lr_scheduler_type", "linear"),
        warmup_steps=o["warmup_steps"],
        weight_decay=0.01,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    trainer = transformers.Trainer(model, args, train_dataset=rows, data_collator=collate)
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


def assert_same_steps(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
        assert a["learning_rate"] == pytest.approx(b["learning_rate"], rel=1e-9)
        assert a["epoch"] == pytest.approx(b["epoch"], abs=1e-4)


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        size = theirs[name].float().norm().clamp_min(1e-12)  # a router's correction may be all zeros
        error = (tensor.float() - theirs[name].float()).norm() / size
        assert error < 1e-3, f"{name}: {error}"


def load_tuned(bucket, adapter):
    base = transformers.AutoModelForCausalLM.from_pretrained(bucket / "models/m")
    return peft.PeftModel.from_pretrained(base, adapter, is_trainable=True)


def assert_trained_as_by_trainer(bucket, model, rows, directory):
    """20 steps of a run beside Trainer's with `model`, and the adapters that both end with."""
    theirs = trainer_losses(model, rows, directory, 20)
    assert_same_steps(metrics(bucket), theirs)
    model.save_pretrained(directory / "end")
    assert_close(
        load_file(bucket / "done/m/d/lora_model/adapter_model.safetensors"),
        load_file(directory / "end/adapter_model.safetensors"),
    )


@pytest.mark.parametrize("kind", MODELS)
def test_twenty_lora_steps_are_those_of_peft_and_trainer(tmp_path, kind):
    bucket = tmp_path / "bucket"
    make_model(kind, bucket / "models/m")
    rows = make_rows(53, 3)
    make_data(bucket, [rows[:30], rows[30:]])
    make_adapter(bucket, tmp_path / "start", targets=TARGETS_OF.get(kind, "all-linear"))
    train(bucket, adapter=tmp_path / "start", shuffle=False, max_steps=20, **BASE_OPTIONS)

    model = load_tuned(bucket, tmp_path / "start")
    assert_trained_as_by_trainer(bucket, model, rows, tmp_path)


def test_a_run_within_its_warm_up_is_told(bucket, tmp_path):
    options = dict(max_steps=3, warmup_steps=100, learning_rate=1e-3)
    done = subprocess.run(command(bucket, **options), capture_output=True, text=True, check=True)
    assert "all 3 steps are within the warm-up of 100" in done.stderr
    assert "reaches 2e-05 of 0.001" in done.stderr
    done = subprocess.run(command(bucket, max_steps=6, fresh=True), capture_output=True, text=True, check=True)
    assert "warm-up" not in done.stderr


def test_weights_that_are_not_numbers_are_named(bucket):
    path = bucket / "models/m/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    said = train(bucket, code=1, max_steps=2)
    assert "model.layers.1.mlp.up_proj.weight of models/m holds NaN or infinity" in said


def test_the_adapter_names_a_base_that_peft_can_open(bucket):
    (bucket / "models/m/info.json").write_text(json.dumps({"source": "hf://org/name@0123abc"}))
    train(bucket, max_steps=1)
    config = json.loads((bucket / "done/m/d/lora_model/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/name"
    source = str(bucket / "models/m")
    (bucket / "models/m/info.json").write_text(json.dumps({"source": source}))
    train(bucket, max_steps=1, replace=True)
    peft.AutoPeftModelForCausalLM.from_pretrained(bucket / "done/m/d/lora_model")


RICHER = {
    "dora": dict(use_dora=True),
    "rslora": dict(use_rslora=True),
    "biases": dict(bias="all"),
    "biases-of-targets": dict(bias="lora_only", targets=["q_proj", "down_proj"]),
    "head": dict(modules_to_save=["lm_head"]),
    "embedding-and-dora": dict(modules_to_save=["embed_tokens"], use_dora=True, targets=["v_proj"]),
}


def richer_bucket(tmp_path):
    make_model("qwen2", tmp_path / "bucket/models/m", tie_word_embeddings=False)
    make_data(tmp_path / "bucket", [make_rows(53, 3)])
    return tmp_path / "bucket"


@pytest.mark.parametrize("kind", RICHER)
def test_richer_adapters_train_as_in_peft(tmp_path, kind):
    bucket = richer_bucket(tmp_path)
    make_adapter(bucket, tmp_path / "start", **RICHER[kind])
    train(bucket, adapter=tmp_path / "start", shuffle=False, max_steps=20, **BASE_OPTIONS)
    model = load_tuned(bucket, tmp_path / "start")
    assert_same_steps(metrics(bucket), trainer_losses(model, make_rows(53, 3), tmp_path, 20))
    model.save_pretrained(tmp_path / "end")
    assert_close(
        load_file(bucket / "done/m/d/lora_model/adapter_model.safetensors"),
        load_file(tmp_path / "end/adapter_model.safetensors"),
    )
    check = json.loads((bucket / "done/m/d/info.json").read_text())["merge_check"]
    assert check["relative_rms"] <= 3 * max(check["rounding_relative_rms"], 1e-5)


@pytest.mark.parametrize("kind", RICHER)
def test_flags_make_the_adapters_that_peft_makes(tmp_path, kind):
    bucket = richer_bucket(tmp_path)
    make_adapter(bucket, tmp_path / "theirs", **RICHER[kind])
    flags = dict(RICHER[kind])
    if "targets" in flags:
        flags["target_modules"] = flags.pop("targets")
    if "bias" in flags:
        flags["lora_bias"] = flags.pop("bias")
    train(bucket, max_steps=1, lora_r=4, lora_alpha=8, **flags)
    ours, theirs = (
        {name: tensor.shape for name, tensor in load_file(d / "adapter_model.safetensors").items()}
        for d in (bucket / "done/m/d/lora_model", tmp_path / "theirs")
    )
    assert ours == theirs
    load_tuned(bucket, bucket / "done/m/d/lora_model")


def test_target_modules_may_be_a_regular_expression(bucket):
    train(bucket, max_steps=1, target_modules=r".*\.1\.(self_attn\.[qv]|mlp\.up)_proj")
    names = load_file(bucket / "done/m/d/lora_model/adapter_model.safetensors")
    modules = {name.split("model.layers.")[1].split(".lora_")[0] for name in names}
    assert modules == {"1.self_attn.q_proj", "1.self_attn.v_proj", "1.mlp.up_proj"}


def test_an_embedding_trained_apart_from_a_tied_head_is_not_merged(bucket):
    train(bucket, max_steps=1, modules_to_save=["embed_tokens"])
    done = bucket / "done/m/d"
    assert json.loads((done / "info.json").read_text())["merge_check"] is None
    assert not (done / "fused").exists()
    assert "base_model.model.model.embed_tokens.weight" in load_file(
        done / "lora_model/adapter_model.safetensors"
    )


@pytest.mark.parametrize("schedule", ["cosine", "constant", "constant_with_warmup"])
def test_epochs_and_schedules_are_those_of_trainer(bucket, tmp_path, schedule):
    rows = make_rows(30, 1) + make_rows(23, 2)
    make_adapter(bucket, tmp_path / "start")
    options = BASE_OPTIONS | dict(lr_scheduler_type=schedule, epochs=1.3)
    train(bucket, adapter=tmp_path / "start", shuffle=False, **options)
    theirs = trainer_losses(load_tuned(bucket, tmp_path / "start"), rows, tmp_path, -1, **options)
    assert_same_steps(metrics(bucket), theirs)


@pytest.mark.parametrize(
    "kind", ["qwen2", "llama", "gemma3", "phi3", "olmo2", "mixtral", "gpt-oss", "deepseek-v3"]
)
def test_full_steps_are_those_of_trainer(tmp_path, kind):
    bucket = tmp_path / "bucket"
    make_model(kind, bucket / "models/m")
    rows = make_rows(53, 3)
    make_data(bucket, [rows])
    options = BASE_OPTIONS | dict(learning_rate=1e-3)
    train(bucket, full=True, shuffle=False, max_steps=20, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(bucket / "models/m")
    theirs = trainer_losses(model, rows, tmp_path, 20, **options)
    assert_same_steps(metrics(bucket), theirs)
    model.save_pretrained(tmp_path / "end")
    fused = bucket / "done/m/d/fused"
    assert_close(load_file(fused / "model.safetensors"), load_file(tmp_path / "end/model.safetensors"))
    assert not (bucket / "done/m/d/lora_model").exists()


def test_full_training_of_a_bfloat16_model_keeps_finer_masters(tmp_path):
    bucket = tmp_path / "bucket"
    make_model("qwen2", bucket / "models/m", torch.bfloat16)
    make_data(bucket, [make_rows(40, 3)])
    options = BASE_OPTIONS | dict(learning_rate=1e-3)
    train(bucket, full=True, max_steps=10, **options)
    sixteen = [line["loss"] for line in metrics(bucket)]
    train(bucket, full=True, max_steps=10, dtype="float32", replace=True, **options)
    assert sixteen == pytest.approx([line["loss"] for line in metrics(bucket)], abs=0.05)
    weights = load_file(bucket / "done/m/d/fused/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_merged_model_and_adapter_give_the_same_logits(bucket):
    train(bucket, max_steps=12, **BASE_OPTIONS)
    done = bucket / "done/m/d"
    ids = torch.tensor([make_rows(1, 9)[0]["input_ids"]])
    fused = transformers.AutoModelForCausalLM.from_pretrained(done / "fused")
    with torch.no_grad():
        merged = fused(ids).logits
        adapted = load_tuned(bucket, done / "lora_model")(ids).logits
        base = transformers.AutoModelForCausalLM.from_pretrained(bucket / "models/m")(ids).logits
    assert (merged - adapted).abs().max() < 1e-4
    assert (merged - base).abs().max() > 1e-2
    info = json.loads((done / "info.json").read_text())
    assert info["steps"] == 12 and info["merge_check"]["relative_rms"] < 1e-4
    assert "<svg" in (done / "report.html").read_text()


def made_again(bucket):
    """The data as a new version of pretokenize would leave it."""
    info = bucket / "model-ready/m/d/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"note": "made again"}))


def test_a_second_run_does_nothing_and_another_one_leaves_the_result_alone(bucket):
    options = BASE_OPTIONS | dict(max_steps=4)
    other = options | dict(learning_rate=2e-3, use_dora=True)
    assert not train(bucket, **options)["already_done"]
    before = tree_digest(bucket)
    assert train(bucket, **options)["already_done"]
    said = train(bucket, code=1, **other)
    assert "learning_rate was 0.01, is 0.002; use_dora was not given, is true" in said
    assert "--run-name" in said and "--replace" in said
    assert tree_digest(bucket) == before
    assert not train(bucket, run_name="other", **other)["already_done"]
    assert before.items() <= tree_digest(bucket).items()
    made_again(bucket)
    assert "the data changed" in train(bucket, code=1, **options)


@pytest.mark.parametrize("allowed", ["replace", "fresh"])
def test_a_result_is_replaced_when_that_is_said(bucket, allowed):
    options = BASE_OPTIONS | dict(max_steps=4)
    other = options | dict(full=True)
    train(bucket, run_name="alone", **other)
    train(bucket, **options)
    assert not train(bucket, **{allowed: True}, **other)["already_done"]
    weights = "fused/model.safetensors"
    assert (bucket / "done/m/d" / weights).read_bytes() == (bucket / "done/m/d@alone" / weights).read_bytes()
    assert not (bucket / "done/m/d/lora_model").exists()
    assert not (bucket / "checkpoints/m/d").exists()
    assert train(bucket, replace=True, **other)["already_done"]


def test_a_result_stays_until_the_new_one_is_published(bucket):
    options = BASE_OPTIONS | dict(max_steps=4)
    train(bucket, **options)
    done = bucket / "done/m/d"
    before = tree_digest(done)
    other = BASE_OPTIONS | dict(max_steps=100, replace=True)
    interrupted(bucket, other, 4)
    assert tree_digest(done) == before
    # A file stands where the new result must be written to.
    waiting = bucket / "checkpoints/m/d/result"
    waiting.write_text("")
    assert "result" in train(bucket, code=1, **other)
    assert tree_digest(done) == before
    waiting.unlink()
    assert train(bucket, **other)["steps"] == 100
    assert json.loads((done / "info.json").read_text())["steps"] == 100


def interrupted(bucket, options, step):
    """Stops a run after `step` is done; returns what it said."""
    process = subprocess.Popen(command(bucket, **options), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if f"step {step}/" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait() == 143


def test_a_run_with_other_options_leaves_the_checkpoint_alone(bucket):
    options = BASE_OPTIONS | dict(max_steps=3000, save_steps=2)
    interrupted(bucket, options, 6)
    latest = bucket / "checkpoints/m/d/latest.json"
    before = latest.read_bytes()
    for other in (dict(learning_rate=2e-3), dict(max_steps=2999)):
        said = train(bucket, code=1, **(options | other))
        assert "learning_rate was 0.01, is 0.002" in said or "max_steps was 3000, is 2999" in said
        assert "--run-name" in said and "--replace" in said and "--fresh" in said
    made_again(bucket)
    assert "the data changed" in train(bucket, code=1, **options)
    assert latest.read_bytes() == before


def test_another_split_of_the_same_rows_goes_on(bucket):
    options = BASE_OPTIONS | dict(max_steps=300)
    train(bucket, **options)
    weights = bucket / "done/m/d/lora_model/adapter_model.safetensors"
    expected = weights.read_bytes()
    assert train(bucket, **(options | dict(batch_size=4, gradient_accumulation_steps=1)))["already_done"]
    subprocess.run(["rm", "-rf", bucket / "done"], check=True)
    interrupted(bucket, options, 6)
    train(bucket, **(options | dict(batch_size=4, gradient_accumulation_steps=1)))
    assert weights.read_bytes() == expected


def test_a_checkpoint_of_another_run_stays_until_the_first_new_one(bucket):
    options = BASE_OPTIONS | dict(max_steps=3000, save_steps=2)
    interrupted(bucket, options, 6)
    latest = bucket / "checkpoints/m/d/latest.json"
    options["replace"] = True
    made_again(bucket)
    before = latest.read_bytes()
    process = subprocess.Popen(
        command(bucket, **(options | dict(save_steps=0))), stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.readline()
    while "step 3/" not in said:
        said += process.stderr.readline()
    process.kill()
    process.wait()
    assert "of another run (the data changed), which stays until" in said
    assert latest.read_bytes() == before
    interrupted(bucket, options, 8)
    assert json.loads(latest.read_text())["step"] >= 8


def test_what_the_starting_adapter_decides_is_refused_beside_it(bucket, tmp_path):
    make_adapter(bucket, tmp_path / "start")
    said = train(bucket, code=1, adapter=tmp_path / "start", lora_r=64, max_steps=1)
    assert "--lora-r: --adapter" in said


def test_an_adapter_in_pytorchs_format_is_told_how_it_is_converted(bucket, tmp_path):
    start = tmp_path / "start"
    make_adapter(bucket, start)
    weights = start / "adapter_model.safetensors"
    torch.save(load_file(weights), start / "adapter_model.bin")
    weights.unlink()
    said = train(bucket, code=1, adapter=start, max_steps=1)
    assert "adapter_model.bin: its weights are not safetensors" in said
    code = re.search(r"python -c '(.*)'", said)[1]
    subprocess.run([sys.executable, "-c", code], cwd=start, check=True)
    train(bucket, adapter=start, max_steps=1)


WRAPPED = {
    "_orig_mod.": "torch.compile",
    "module.": "wrapper for several devices",
    "base_model.model.": "peft's adapter around it",
}


@pytest.mark.parametrize("prefix", WRAPPED)
def test_a_checkpoint_saved_in_a_wrapper_is_named(bucket, prefix):
    path = bucket / "models/m/model.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    said = train(bucket, code=1, max_steps=1)
    assert f"names begin with {prefix}: " in said and WRAPPED[prefix] in said


def test_a_checkpoint_of_the_inner_model_is_trained(bucket):
    path = bucket / "models/m/model.safetensors"
    inner = {name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}
    save_file(inner, path, {"format": "pt"})
    train(bucket, max_steps=1)
    transformers.AutoModelForCausalLM.from_pretrained(bucket / "done/m/d/fused")


def test_an_adapter_in_the_bucket_is_a_start(bucket):
    train(bucket, max_steps=4, run_name="a", **BASE_OPTIONS)
    start = "done/m/d@a/lora_model"
    train(bucket, max_steps=0, epochs=0.1, adapter=start, lora_dropout=0.25, **BASE_OPTIONS)
    config = json.loads((bucket / "done/m/d/lora_model/adapter_config.json").read_text())
    assert config["r"] == 16 and config["lora_dropout"] == 0.25


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_recomputing_changes_nothing_not_even_in_the_middle_of_a_run(bucket, dropout):
    options = BASE_OPTIONS | dict(max_steps=8, lora_dropout=dropout)
    train(bucket, recompute="none", **options)
    weights = bucket / "done/m/d/lora_model/adapter_model.safetensors"
    expected, lines = weights.read_bytes(), without_rate(metrics(bucket))
    for recompute in ["auto", "light", "full", "offload"]:
        train(bucket, fresh=True, recompute=recompute, **options)
        assert weights.read_bytes() == expected
        assert without_rate(metrics(bucket)) == lines
        used = json.loads((bucket / "done/m/d/info.json").read_text())["recompute"]
        assert used == ("none" if recompute == "auto" else recompute)
    process = subprocess.Popen(
        command(bucket, fresh=True, recompute="light", save_steps=1, **options), stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "step 3" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait() in (0, 143)
    train(bucket, recompute="full", **options)
    assert weights.read_bytes() == expected


def peak_memory(bucket, **options):
    """Peak resident bytes of a training that succeeds."""
    megabytes, code, said = peak_rss(command(bucket, **options))
    assert code == 0, said
    return megabytes * 1024 * 1024


def test_a_deep_model_trains_and_publishes_within_the_plan(tmp_path):
    """Weights of 0.5 GB in 32 layers: a second copy would show."""
    bucket = tmp_path / "bucket"
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**SIZES | dict(num_hidden_layers=32, hidden_size=640, intermediate_size=1536))
    transformers.LlamaForCausalLM(config).save_pretrained(bucket / "models/m")
    (bucket / "models/m/info.json").write_text("{}")
    make_data(bucket, [make_rows(30, 1, longest=400)])
    options = BASE_OPTIONS | dict(max_steps=2, max_length=400, lora_r=8)
    planned = json.loads(
        subprocess.run(
            [PROBE, "plan", *command(bucket, **options)[1:]], capture_output=True, text=True, check=True
        ).stdout
    )
    peaks = []
    for recompute in ["none", "light", "full"]:
        peaks.append(peak_memory(bucket, fresh=True, recompute=recompute, **options))
        assert peaks[-1] < planned[recompute]
    assert peaks[0] > peaks[1] > peaks[2]


RESUMED = dict(
    lora=dict(lora_dropout=0.1, max_steps=40),
    packed=dict(packing=True, max_length=64, epochs=12),
    full=dict(full=True, max_steps=40, dtype="bfloat16"),
)


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED.keys())
def test_killed_runs_end_where_an_undisturbed_one_does(bucket, options):
    options = BASE_OPTIONS | options | dict(save_steps=3)
    train(bucket, **options)
    done = bucket / "done/m/d"
    weights = done / ("fused/model.safetensors" if "full" in options else "lora_model/adapter_model.safetensors")
    expected, lines = weights.read_bytes(), without_rate(metrics(bucket))
    subprocess.run(["rm", "-rf", bucket / "done"], check=True)

    for kills, delay in enumerate([0.6, 0.9, 1.2, 1.0]):
        stop = signal.SIGKILL if kills != 2 else signal.SIGTERM
        process = subprocess.Popen(command(bucket, **options), stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(stop)
        process.wait()
    train(bucket, **options)
    assert weights.read_bytes() == expected
    assert without_rate(metrics(bucket)) == lines


def test_packing_changes_neither_loss_nor_weights_of_a_whole_epoch_step(bucket, tmp_path):
    """With every example in one step, how rows are cut cannot matter unless sequences leak."""
    make_adapter(bucket, tmp_path / "start")
    options = BASE_OPTIONS | dict(adapter=tmp_path / "start", batch_size=64, epochs=4, max_length=100)
    train(bucket, packing=False, **options)
    plain = metrics(bucket)
    train(bucket, packing=True, replace=True, **options)
    packed = metrics(bucket)
    assert len(plain) == len(packed) == 4
    for a, b in zip(plain, packed):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["tokens"] == b["tokens"]


def test_float16_scales_its_loss(bucket):
    options = BASE_OPTIONS | dict(max_steps=10, learning_rate=1e-3, shuffle=False)
    train(bucket, dtype="float32", **options)
    expected = [line["loss"] for line in metrics(bucket)]
    train(bucket, dtype="float16", replace=True, **options)
    assert [line["loss"] for line in metrics(bucket)] == pytest.approx(expected, abs=0.02)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no bf16 products: --dtype auto is float32",
)
def test_a_checkpoint_that_names_no_dtype_is_trained_in_its_own(tmp_path):
    bucket = tmp_path / "bucket"
    make_model("qwen2", bucket / "models/m", torch.bfloat16)
    make_data(bucket, [make_rows(20)])
    train(bucket, max_steps=4)
    named = metrics(bucket)
    path = bucket / "models/m/config.json"
    config = json.loads(path.read_text())
    del config["dtype"]
    path.write_text(json.dumps(config))
    train(bucket, max_steps=4, fresh=True)
    assert without_rate(metrics(bucket)) == without_rate(named)
    train(bucket, max_steps=4, fresh=True, dtype="float32")
    assert without_rate(metrics(bucket)) != without_rate(named)


def test_long_examples_are_cut_and_counted(tmp_path):
    bucket = tmp_path / "bucket"
    make_model("qwen2", bucket / "models/m")
    rows = [{"input_ids": list(range(50)), "assistant_masks": [0] * 10 + [1] * 40}] * 3
    rows += [{"input_ids": list(range(20)), "assistant_masks": [0] * 15 + [1] * 5}]
    make_data(bucket, [rows])
    train(bucket, max_length=12, warmup_steps=0)
    info = json.loads((bucket / "done/m/d/info.json").read_text())
    assert info["examples_cut"] == 4
    assert info["examples_without_target"] == 1
    assert info["target_tokens"] == 3 * 2


BAD = {
    "no target": ({}, "nothing-to-learn", "none of 5 examples"),
    "rate": (dict(learning_rate=-1), None, "--learning-rate must be greater than 0"),
    "schedule": (dict(lr_scheduler_type="exponential"), None, "exponential' is not one of linear"),
    "module": (dict(target_modules=["q_prj"]), None, "no module 'q_prj'"),
    "data set": (dict(dataset="nope"), None, "lorry pretokenize --model m --dataset nope"),
    "model": (dict(model="nope"), None, "lorry import-model"),
    "adapter": (dict(adapter="/nope"), None, "no such directory"),
    "nan": (dict(learning_rate=1e30, max_grad_norm=0, warmup_steps=0), None, "try a lower"),
}


@pytest.mark.parametrize("options, data, message", BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(bucket, options, data, message):
    if data:
        rows = [{"input_ids": [1, 2, 3], "assistant_masks": [0, 0, 0]}] * 5
        subprocess.run(["rm", "-rf", bucket / "model-ready"], check=True)
        make_data(bucket, [rows])
    said = train(bucket, code=1, **(dict(max_steps=5) | options))
    assert message in said
    assert said.strip().splitlines()[-1].startswith("error: ")
    assert not (bucket / "done").exists()
