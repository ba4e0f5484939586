"""Logits, adapters and merges against `transformers` and `peft`, on small random checkpoints.

Runs build/.../lorry_model_probe ($LORRY_BUILD, default build/release). Tolerance of logits in
float32: 1e-4 absolute, what the order of summation may cost at these sizes.
"""

import json
import os
import shutil

import pytest
from checkpoints import (
    IDS,
    PROBE,
    assert_close,
    make_adapter,
    make_model,
    old_style,
    peft,
    probe,
    reference,
    refusal,
    reopened,
    torch,
    transformers,
)
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
YARN = dict(
    rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128
)

MODELS = {
    "qwen2-tied": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen2-untied-mqa": ("Qwen2", dict(num_key_value_heads=1)),
    "qwen2-window": (
        "Qwen2",
        dict(use_sliding_window=True, sliding_window=5, max_window_layers=1),
    ),
    "qwen2-layer-types": (
        "Qwen2",
        dict(
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "qwen2-yarn": ("Qwen2", dict(rope_parameters=YARN)),
    "llama2-mha": ("Llama", dict(num_key_value_heads=4, rms_norm_eps=1e-5)),
    "llama3": ("Llama", dict(rope_parameters=LLAMA3, head_dim=20)),
    "llama32-tied": ("Llama", dict(rope_parameters={**LLAMA3, "factor": 32.0}, tie_word_embeddings=True)),
    "llama-linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0))),
    "llama-dynamic": ("Llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0))),
    "llama-biases": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True)),
    "qwen3-wide-heads": ("Qwen3", dict(head_dim=32, attention_bias=True)),
    "mistral-window": ("Mistral", dict(sliding_window=6)),
    "mistral-no-window": ("Mistral", dict(sliding_window=None, head_dim=10)),
    "mistral-gqa8": ("Mistral", dict(num_attention_heads=8, num_key_value_heads=1, hidden_size=64)),
}


@pytest.fixture(params=MODELS)
def checkpoint(request, tmp_path):
    family, options = MODELS[request.param]
    model = make_model(family, **options)
    model.save_pretrained(tmp_path / "model")
    return tmp_path, model


def test_packed_sequences_have_the_logits_of_each_alone(checkpoint):
    directory, model = checkpoint
    assert_close(probe(directory), reference(model))


@pytest.mark.parametrize("chunk", [3, 100])
def test_cached_steps_have_the_logits_of_the_whole(checkpoint, chunk):
    directory, model = checkpoint
    assert_close(probe(directory, mode="cached", chunk=chunk, prefill=9), reference(model))


def test_cached_decoding_over_many_blocks(tmp_path):
    model = make_model("Qwen2", use_sliding_window=True, sliding_window=40, max_window_layers=2)
    model.save_pretrained(tmp_path / "model")
    ids = [[(7 * i + j) % 97 for i in range(n)] for j, n in enumerate([150, 33, 64, 1])]
    ours = probe(tmp_path, mode="cached", chunk=50, prefill=100, sequences=ids)
    assert_close(ours, reference(model, ids))


def test_sharded_checkpoint(tmp_path):
    model = make_model("Llama")
    model.save_pretrained(tmp_path / "model", max_shard_size="30KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    assert_close(probe(tmp_path), reference(model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_storage_is_widened_exactly(tmp_path, dtype):
    make_model("Qwen3", head_dim=16).to(getattr(torch, dtype)).save_pretrained(tmp_path / "model")
    assert_close(probe(tmp_path), reference(reopened(tmp_path)))


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_bfloat16_is_as_near_to_float32_as_transformers(tmp_path, family, mode):
    model = make_model(family, initializer_range=0.05).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    theirs = reference(reopened(tmp_path, torch.bfloat16))
    exact = reference(reopened(tmp_path))
    ours = probe(tmp_path, dtype="bfloat16", mode=mode)
    for mine, other, truth in zip(ours, theirs, exact):
        budget = 1.5 * (other - truth).abs().max() + 0.01
        assert (mine - truth).abs().max() <= budget


@pytest.mark.parametrize("name", ["qwen2-tied", "llama3", "qwen2-yarn", "qwen3", "mistral-window"])
def test_config_as_transformers_4_wrote_it(tmp_path, name):
    family, options = MODELS[name]
    model = make_model(family, **options)
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(old_style(json.loads(path.read_text()))))
    assert_close(probe(tmp_path), reference(model))


def test_config_that_says_tied_over_two_different_matrices(tmp_path):
    model = make_model("Llama")
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    assert_close(probe(tmp_path), reference(model))


# Adapters


@pytest.mark.parametrize("family", ["Qwen2", "Llama", "Qwen3", "Mistral"])
def test_adapter_logits(tmp_path, family):
    model = make_model(family, head_dim=12)
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter")
    theirs = reference(adapted)
    assert_close(probe(tmp_path, adapters=["adapter"]), theirs)
    assert_close(probe(tmp_path, adapters=["adapter"], mode="cached"), theirs)


@pytest.mark.parametrize(
    "options",
    [
        dict(use_rslora=True),
        dict(target_modules=["v_proj", "q_proj"]),
        dict(target_modules=r".*layers\.[02]\.mlp\.(up|down)_proj"),
        dict(layers_to_transform=[1], target_modules=["k_proj", "o_proj"]),
        dict(r=1, lora_alpha=3),
        dict(dtype=torch.bfloat16),
        dict(dtype=torch.float16),
    ],
    ids=str,
)
def test_adapter_kinds_and_their_saved_copies(tmp_path, options):
    model = make_model("Qwen2")
    model.save_pretrained(tmp_path / "model")
    theirs = reference(make_adapter(model, tmp_path / "adapter", **options))
    ours = probe(tmp_path, adapters=["adapter"], save_adapter="copy")
    assert_close(ours, theirs)
    again = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model"), tmp_path / "copy"
    )
    assert_close(reference(again), theirs)


def test_several_adapters_in_one_step(tmp_path):
    make_model("Qwen2").save_pretrained(tmp_path / "model")
    theirs = reference(make_model("Qwen2"))
    for name, seed in [("one", 1), ("two", 2)]:
        adapted = make_adapter(make_model("Qwen2"), tmp_path / name, seed=seed, r=2 + 2 * seed)
        theirs[seed] = reference(adapted)[seed]
    for mode in ["packed", "cached"]:
        ours = probe(tmp_path, adapters=[None, "one", "two", None], mode=mode)
        assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_weights_are_those_of_peft(tmp_path, dtype):
    model = make_model("Qwen2").to(dtype)
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter")
    probe(
        tmp_path,
        adapters=["adapter"],
        merge="merged",
        dtype=str(dtype).removeprefix("torch."),
    )
    merged = adapted.merge_and_unload().state_dict()
    ours = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in ours.items():
        if dtype == torch.bfloat16:
            # One step of bfloat16 where the float32 sums differ in their last place.
            assert (tensor != merged[name]).float().mean() < 1e-3
            torch.testing.assert_close(tensor, merged[name], rtol=8e-3, atol=1e-6)
        else:
            torch.testing.assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6)


def test_fresh_adapter_is_deterministic_and_changes_nothing(tmp_path):
    model = make_model("Qwen2")
    model.save_pretrained(tmp_path / "model")
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        probe(tmp_path, create_adapter=name, seed=seed)
    read = lambda name: (tmp_path / name / "adapter_model.safetensors").read_bytes()  # noqa: E731
    assert read("a") == read("b") != read("c")
    theirs = reference(model)
    assert_close(probe(tmp_path, adapters=["a"]), theirs)
    opened = peft.PeftModel.from_pretrained(model, tmp_path / "a")
    assert_close(reference(opened), theirs)
    for name, tensor in load_file(tmp_path / "a" / "adapter_model.safetensors").items():
        if "lora_A" in name:
            bound = tensor.shape[1] ** -0.5
            assert tensor.abs().max() <= bound
            assert abs(tensor.std().item() - bound / 3**0.5) < 0.15 * bound


# Refusals: one line that names what is wrong


@pytest.fixture
def small(tmp_path):
    make_model("Qwen2").save_pretrained(tmp_path / "model")
    return tmp_path


def edit_config(directory, **changes):
    path = directory / "model" / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            dict(architectures=["GemmaForCausalLM"], model_type="gemma"),
            ["GemmaForCausalLM", "Qwen2ForCausalLM", "MistralForCausalLM"],
        ),
        (dict(architectures=None, model_type="gpt2"), ["gpt2"]),
        (dict(quantization_config={"quant_method": "gptq"}), ["gptq"]),
        (dict(hidden_act="relu"), ["relu"]),
        (dict(rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}), ["longrope"]),
        (dict(hidden_size="big"), ["hidden_size", "big"]),
        (dict(num_key_value_heads=3), ["num_key_value_heads"]),
        (dict(intermediate_size=81), ["mlp.gate_proj.weight", "(80, 48)", "(81, 48)"]),
        (dict(num_hidden_layers=4), ["model.layers.3.", "missing"]),
        (dict(tie_word_embeddings=False, vocab_size=98), ["model.embed_tokens.weight"]),
    ],
    ids=str,
)
def test_config_is_refused_by_name(small, changes, words):
    edit_config(small, **changes)
    message = refusal(small)
    assert len(message.strip().splitlines()) == 1
    for word in words:
        assert word in message


def test_truncated_weights_are_named(small):
    path = small / "model" / "model.safetensors"
    whole = path.read_bytes()
    for length in [len(whole) - 1, len(whole) // 2, 100, 5, 0]:
        path.write_bytes(whole[:length])
        assert "model.safetensors" in refusal(small)
    path.write_bytes(b"\xff" * 64)
    assert "not a safetensors file" in refusal(small)


def test_missing_files_are_named(small):
    os.remove(small / "model" / "model.safetensors")
    assert "model.safetensors" in refusal(small)
    os.remove(small / "model" / "config.json")
    assert "config.json" in refusal(small)


def test_missing_shard_is_named(tmp_path):
    make_model("Llama").save_pretrained(tmp_path / "model", max_shard_size="30KB")
    shard = sorted((tmp_path / "model").glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(tmp_path)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(lora_bias=True), "lora_bias"),
        (dict(trainable_token_indices=[3, 5]), "trainable_token_indices"),
        (dict(layer_replication=[(0, 2), (1, 3)]), "layer_replication"),
        (dict(target_modules=["q_proj", "lm_head"]), "lm_head"),
    ],
    ids=str,
)
def test_adapter_of_another_kind_is_refused_by_name(small, options, words):
    make_adapter(make_model("Llama", attention_bias=True, mlp_bias=True), small / "adapter", **options)
    assert words in refusal(small, check=False, adapters=["adapter"], sequences=IDS)


@pytest.mark.parametrize(
    "options",
    [
        dict(use_dora=True),
        dict(use_dora=True, use_rslora=True, target_modules=["v_proj", "down_proj"]),
        dict(bias="all"),
        dict(modules_to_save=["lm_head"], target_modules=["q_proj"]),
        dict(modules_to_save=["embed_tokens"], target_modules=["o_proj"]),
        dict(rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.up_proj": 3}, alpha_pattern={"v_proj": 9}),
        dict(layers_to_transform=[0, 2], target_modules=["q_proj"]),
        dict(target_modules=r".*\.1\.(self_attn\.o|mlp\.up)_proj"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_richer_adapters_have_the_logits_of_peft(tmp_path, options, mode):
    model = make_model("Qwen2")
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter", **options)
    with torch.no_grad():  # trained biases and saved modules differ from the base model's
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    theirs = reference(adapted)
    assert_close(probe(tmp_path, adapters=["adapter"], mode=mode), theirs)
    # And what lorry saves is what peft opens.
    probe(tmp_path, adapters=["adapter"], save_adapter="copy")
    again = peft.PeftModel.from_pretrained(reopened(tmp_path), tmp_path / "copy").eval()
    assert_close(reference(again), theirs)
    # Merged, it is a model like any other.
    probe(tmp_path, adapters=["adapter"], merge="merged")
    shutil.copy(tmp_path / "model/config.json", tmp_path / "merged")
    assert_close(probe(tmp_path, model="merged"), theirs)


def test_adapter_of_another_base_is_refused(small):
    make_adapter(make_model("Qwen2", hidden_size=64), small / "adapter")
    assert "another base model" in refusal(small, check=False, adapters=["adapter"], sequences=IDS)
    shutil.rmtree(small / "adapter")
    make_adapter(make_model("Qwen2", num_hidden_layers=4), small / "adapter")
    assert "another base model" in refusal(small, check=False, adapters=["adapter"], sequences=IDS)
