"""Every family of models beside `transformers` and `peft`, on small random checkpoints.

Each family has at least three checkpoints of different shapes: grouped and single key heads, heads
whose size is not hidden_size / heads, odd numbers of layers, windows shorter than the sequences,
tied and untied heads, biases. Tolerance of logits in float32: 1e-4 absolute (TOLERANCE), what the
order of summation may cost at these sizes; `transformers` itself is within 2e-5 of float64 there.
"""

import json
import math
import re
import shutil

import pytest
from checkpoints import (
    PROBE,
    assert_close,
    make_adapter,
    make_model,
    old_style,
    probe,
    randomize,
    reference,
    refusal,
    reopened,
    run_probe,
    torch,
    transformers,
)
from model_configs import ACCEPTED, REFUSED
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128)
MSCALE = dict(YARN, factor=40.0, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707)
NEXT = dict(YARN, llama_4_scaling_beta=0.1, mscale=1.0, mscale_all_dim=1.0)
ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]


def longrope(width, original, **options):
    """Factors that differ from dimension to dimension; `width` is the rotated part of a head."""
    return dict(
        rope_type="longrope",
        rope_theta=1e4,
        short_factor=[1.0 + 0.05 * i for i in range(width // 2)],
        long_factor=[1.5 + 0.5 * i for i in range(width // 2)],
        original_max_position_embeddings=original,
        **options,
    )


def by_layer_type(full, sliding):
    return dict(rope_parameters=dict(full_attention=full, sliding_attention=sliding))


GEMMA = dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=6, pad_token_id=0)
GEMMA3 = dict(GEMMA, model_class="Gemma3ForCausalLM")
PHI = dict(pad_token_id=0)
GRANITE4 = dict(
    num_local_experts=0,
    shared_intermediate_size=40,
    position_embedding_type="rope",
    layer_types=["full_attention"] * 3,
    mamba_n_heads=4,
)
MULTIPLIERS = dict(
    embedding_multiplier=12.0,
    attention_multiplier=0.0625,
    residual_multiplier=0.22,
    logits_scaling=3.0,
)
MOE = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24)
GPT_OSS = dict(num_local_experts=6, num_experts_per_tok=3, head_dim=12, sliding_window=6)
MLA = dict(
    num_key_value_heads=4,
    kv_lora_rank=16,
    qk_nope_head_dim=10,
    qk_rope_head_dim=6,
    v_head_dim=14,
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=24,
    first_k_dense_replace=1,
)
V2 = dict(MLA, q_lora_rank=None)
V3 = dict(MLA, q_lora_rank=20, n_group=4, topk_group=2)

MODELS = {
    "gemma2": ("Gemma2", GEMMA),
    "gemma2-mqa": (
        "Gemma2",
        dict(GEMMA, num_key_value_heads=1, query_pre_attn_scalar=20, attn_logit_softcapping=2.0),
    ),
    "gemma2-no-caps-untied": (
        "Gemma2",
        dict(
            GEMMA,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            tie_word_embeddings=False,
            attention_bias=True,
            num_hidden_layers=2,
        ),
    ),
    "gemma3": ("Gemma3Text", dict(GEMMA3, layer_types=ALTERNATING)),
    "gemma3-two-ropes": (
        "Gemma3Text",
        dict(
            GEMMA3,
            **by_layer_type(
                dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                dict(rope_type="default", rope_theta=1e4),
            ),
            layer_types=ALTERNATING,
            num_key_value_heads=1,
            head_dim=20,
        ),
    ),
    "gemma3-pattern": ("Gemma3Text", dict(GEMMA3, num_hidden_layers=7, num_key_value_heads=4)),
    "gemma3-capped-head": (
        "Gemma3Text",
        dict(GEMMA3, final_logit_softcapping=5.0, tie_word_embeddings=False),
    ),
    "phi3": ("Phi3", PHI),
    "phi3-window": ("Phi3", dict(PHI, sliding_window=5, num_key_value_heads=4)),
    "phi3-longrope-short": ("Phi3", dict(PHI, rope_parameters=longrope(12, 64), original_max_position_embeddings=64)),
    "phi4-mini": (
        "Phi3",
        dict(
            PHI,
            hidden_size=64,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            original_max_position_embeddings=128,
            rope_parameters=longrope(12, 128, partial_rotary_factor=0.75),
        ),
    ),
    "phi3-partial": ("Phi3", dict(PHI, hidden_size=64, rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "olmo2": ("Olmo2", {}),
    "olmo2-mqa-tied": ("Olmo2", dict(num_key_value_heads=1, tie_word_embeddings=True)),
    "olmo2-biases": ("Olmo2", dict(num_key_value_heads=4, attention_bias=True, num_hidden_layers=1)),
    "olmo3": ("Olmo3", dict(sliding_window=6, num_hidden_layers=5)),
    "olmo3-yarn": (
        "Olmo3",
        dict(
            sliding_window=4,
            layer_types=ALTERNATING,
            **by_layer_type(YARN, dict(rope_type="default", rope_theta=1e4)),
        ),
    ),
    "olmo3-mqa": ("Olmo3", dict(sliding_window=9, num_key_value_heads=1, tie_word_embeddings=True)),
    "smollm3": ("SmolLM3", dict(PHI, num_hidden_layers=5)),
    "smollm3-no-rope": ("SmolLM3", dict(PHI, no_rope_layers=[0, 1, 0], tie_word_embeddings=False)),
    "smollm3-window": (
        "SmolLM3",
        dict(PHI, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=5, attention_bias=True, mlp_bias=True),
    ),
    "granite": ("Granite", MULTIPLIERS),
    "granite-defaults": ("Granite", dict(num_key_value_heads=1, tie_word_embeddings=True, initializer_range=0.1)),
    "granite-biases": (
        "Granite",
        dict(MULTIPLIERS, attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    ),
    "granite4": ("GraniteMoeHybrid", dict(GRANITE4, **MULTIPLIERS)),
    "granite4-no-rope": (
        "GraniteMoeHybrid",
        dict(GRANITE4, position_embedding_type=None, attention_multiplier=0.2, tie_word_embeddings=True),
    ),
    "granite4-mqa": (
        "GraniteMoeHybrid",
        dict(GRANITE4, **MULTIPLIERS, num_key_value_heads=1, attention_bias=True),
    ),
    "ministral": ("Ministral", dict(head_dim=16, sliding_window=6, layer_types=ALTERNATING)),
    "ministral-all-sliding": ("Ministral", dict(head_dim=12, sliding_window=4, num_key_value_heads=1)),
    "ministral-tied": (
        "Ministral",
        dict(head_dim=12, sliding_window=3, tie_word_embeddings=True, layer_types=["full_attention"] * 3),
    ),
    "ministral3": ("Ministral3", dict(head_dim=16, rope_parameters=dict(NEXT, original_max_position_embeddings=8))),
    "ministral3-window": (
        "Ministral3",
        dict(head_dim=12, sliding_window=5, rope_parameters=dict(NEXT, factor=16.0)),
    ),
    "ministral3-tied-mqa": (
        "Ministral3",
        dict(head_dim=20, num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=dict(NEXT, original_max_position_embeddings=5)),
    ),
    "qwen3-moe": ("Qwen3Moe", dict(MOE, head_dim=16, norm_topk_prob=True)),
    "qwen3-moe-dense-layers": (
        "Qwen3Moe",
        dict(MOE, head_dim=12, mlp_only_layers=[1], num_key_value_heads=1, tie_word_embeddings=True),
    ),
    "qwen3-moe-sparse-step": (
        "Qwen3Moe",
        dict(MOE, decoder_sparse_step=2, attention_bias=True, use_sliding_window=True, sliding_window=5),
    ),
    "mixtral": ("Mixtral", dict(num_local_experts=4)),
    "mixtral-window": ("Mixtral", dict(num_local_experts=3, sliding_window=5, head_dim=16)),
    "mixtral-top3": (
        "Mixtral",
        dict(num_local_experts=5, num_experts_per_tok=3, num_key_value_heads=1, tie_word_embeddings=True),
    ),
    "gpt-oss": ("GptOss", GPT_OSS),
    "gpt-oss-layer-types": (
        "GptOss",
        dict(GPT_OSS, layer_types=ALTERNATING[1:] + ALTERNATING[:1], num_key_value_heads=1, head_dim=16),
    ),
    "gpt-oss-limit": (
        "GptOss",
        dict(GPT_OSS, swiglu_limit=0.5, swiglu_alpha=1.3, attention_bias=False, num_experts_per_tok=1),
    ),
    "deepseek-v2-lite": ("DeepseekV2", V2),
    "deepseek-v2-groups": (
        "DeepseekV2",
        dict(
            MLA,
            q_lora_rank=20,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.0,
            rope_parameters=MSCALE,
        ),
    ),
    "deepseek-v2-biases": (
        "DeepseekV2",
        dict(MLA, q_lora_rank=20, attention_bias=True, first_k_dense_replace=0, n_shared_experts=1, num_hidden_layers=2),
    ),
    "deepseek-v3": ("DeepseekV3", V3),
    "deepseek-v3-yarn": (
        "DeepseekV3",
        dict(V3, q_lora_rank=None, rope_parameters=dict(MSCALE, mscale=1.0, mscale_all_dim=1.0), n_shared_experts=2),
    ),
    "deepseek-v3-halves": (
        "DeepseekV3",
        dict(V3, rope_interleave=False, norm_topk_prob=False, n_group=1, topk_group=1, attention_bias=True),
    ),
}

# In bfloat16 a rounding error can move a token to another expert, so single logits say little.
SPARSE = ("Qwen3Moe", "Mixtral", "GptOss", "DeepseekV2", "DeepseekV3")
# Modules that peft adapts as linear maps; it treats experts and routers as parameters.
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LATENT = ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
TARGETS = dict(Qwen3Moe=ATTENTION, Mixtral=ATTENTION, DeepseekV2=LATENT, DeepseekV3=LATENT)


def make(name, **changes):
    family, options = MODELS[name]
    return make_model(family, **{**options, **changes})


def save(name, directory, dtype=torch.float32, **changes):
    model = make(name, **changes).to(dtype)
    model.save_pretrained(directory / "model")
    return model


@pytest.fixture(params=MODELS)
def checkpoint(request, tmp_path):
    return tmp_path, save(request.param, tmp_path)


def test_packed_sequences_have_the_logits_of_each_alone(checkpoint):
    directory, model = checkpoint
    assert_close(probe(directory), reference(model))


@pytest.mark.parametrize("chunk", [3, 100])
def test_cached_steps_have_the_logits_of_the_whole(checkpoint, chunk):
    directory, model = checkpoint
    assert_close(probe(directory, mode="cached", chunk=chunk, prefill=9), reference(model))


# Families whose first checkpoint above has layers with a window.
WINDOWED = ("Gemma2", "Gemma3Text", "Olmo3", "Ministral", "GptOss")
FIRST = {family: name for name, (family, _) in reversed(MODELS.items())}


@pytest.mark.parametrize("family", FIRST)
def test_cached_decoding_over_many_blocks(tmp_path, family):
    changes = dict(sliding_window=40) if family in WINDOWED else {}
    model = save(FIRST[family], tmp_path, **changes)
    ids = [[(7 * i + j) % 97 for i in range(n)] for j, n in enumerate([110, 33, 64, 1])]
    ours = probe(tmp_path, mode="cached", chunk=50, prefill=70, sequences=ids)
    assert_close(ours, reference(model, ids))


@pytest.mark.parametrize("family", FIRST)
@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_bfloat16_is_as_near_to_float32_as_transformers(tmp_path, family, mode):
    save(FIRST[family], tmp_path, initializer_range=0.05, dtype=torch.bfloat16)
    theirs = reference(reopened(tmp_path, torch.bfloat16))
    exact = reference(reopened(tmp_path))
    ours = probe(tmp_path, dtype="bfloat16", mode=mode)
    size = torch.Tensor.norm if family in SPARSE else lambda x: x.abs().max()
    for mine, other, truth in zip(ours, theirs, exact):
        slack = 0.01 * (math.sqrt(truth.numel()) if family in SPARSE else 1)
        assert size(mine - truth) <= 1.5 * size(other - truth) + slack


@pytest.mark.parametrize("family", FIRST)
def test_adapter_logits(tmp_path, family):
    model = save(FIRST[family], tmp_path)
    adapted = make_adapter(
        model, tmp_path / "adapter", target_modules=TARGETS.get(family, "all-linear")
    )
    theirs = reference(adapted)
    assert_close(probe(tmp_path, adapters=["adapter"]), theirs)
    assert_close(probe(tmp_path, adapters=["adapter"], mode="cached"), theirs)


@pytest.mark.parametrize("family", FIRST)
def test_merged_checkpoint_opens_in_transformers(tmp_path, family):
    model = save(FIRST[family], tmp_path)
    targets = TARGETS.get(family, "all-linear")
    theirs = reference(make_adapter(model, tmp_path / "adapter", target_modules=targets))
    probe(tmp_path, adapters=["adapter"], merge="merged")
    check_merged(tmp_path, theirs)


def check_merged(directory, theirs):
    shutil.copy(directory / "model" / "config.json", directory / "merged")
    names = [set(load_file(directory / d / "model.safetensors")) for d in ("model", "merged")]
    assert names[0] == names[1]
    (directory / "model").rename(directory / "base")
    (directory / "merged").rename(directory / "model")
    assert_close(reference(reopened(directory)), theirs)


# Rotary embeddings that depend on the length of the sequence


def test_longrope_takes_the_long_factors_for_sequences_beyond_the_original_length(tmp_path):
    options = dict(
        rope_parameters=longrope(12, 16), original_max_position_embeddings=16
    )
    model = save("phi3", tmp_path, **options)
    ids = [[(5 * i + 3 * n) % 97 for i in range(n)] for n in (40, 16, 17, 9)]
    assert_close(probe(tmp_path, sequences=ids), reference(model, ids))
    assert_close(probe(tmp_path, sequences=ids, mode="cached", chunk=6), reference(model, ids))


@pytest.mark.parametrize(
    "options", [dict(factor=4.0), dict(attention_factor=1.25), dict(factor=1.0)], ids=str
)
def test_attention_factor_of_longrope(tmp_path, options):
    rope = longrope(12, 64, **options)
    model = save("phi3", tmp_path, rope_parameters=rope, original_max_position_embeddings=64)
    assert_close(probe(tmp_path), reference(model))


# Checkpoints as other releases of transformers wrote them


def rewrite_config(directory, change):
    path = directory / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(change(config) or config))


def rename_tensors(directory, change):
    path = directory / "model" / "model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(path).items()}, path)


def old_gemma3(config):
    """As gemma-3-1b on the Hub."""
    ropes = config.pop("rope_parameters")
    full = ropes["full_attention"]
    config["rope_theta"] = full.pop("rope_theta")
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = full if full["rope_type"] != "default" else None
    if config.pop("layer_types") == ALTERNATING:
        config["sliding_window_pattern"] = 2
    return config


@pytest.mark.parametrize("name", ["gemma3", "gemma3-two-ropes", "gemma3-pattern"])
def test_gemma3_config_as_transformers_4_wrote_it(tmp_path, name):
    model = save(name, tmp_path)
    rewrite_config(tmp_path, old_gemma3)
    assert_close(probe(tmp_path), reference(model))


@pytest.mark.parametrize("name", ["gemma2", "phi3-longrope-short", "olmo2", "smollm3", "granite", "mixtral"])
def test_config_as_transformers_4_wrote_it(tmp_path, name):
    model = save(name, tmp_path)
    rewrite_config(tmp_path, old_style)
    assert_close(probe(tmp_path), reference(model))


def test_olmo3_config_as_transformers_4_wrote_it(tmp_path):
    full = dict(YARN, rope_theta=5e5)
    model = save("olmo3-yarn", tmp_path, **by_layer_type(full, dict(rope_type="default", rope_theta=5e5)))

    def change(config):
        config["rope_scaling"] = dict(config.pop("rope_parameters")["full_attention"])
        config["rope_theta"] = config["rope_scaling"].pop("rope_theta")

    rewrite_config(tmp_path, change)
    assert_close(probe(tmp_path), reference(model))


def test_granite4_layer_types_as_on_the_hub(tmp_path):
    model = save("granite4", tmp_path)

    def change(config):
        config["layer_types"] = ["attention"] * 3

    rewrite_config(tmp_path, change)
    assert_close(probe(tmp_path), reference(model))


def test_num_experts_as_on_the_hub(tmp_path):
    model = save("qwen3-moe", tmp_path)

    def change(config):
        config.pop("num_local_experts", None)
        config["num_experts"] = 6

    rewrite_config(tmp_path, change)
    assert_close(probe(tmp_path), reference(model))


def test_tensors_of_a_multi_token_prediction_layer_are_not_missed(tmp_path):
    model = save("deepseek-v3", tmp_path)
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.3.eh_proj.weight"] = torch.zeros(48, 96)
    save_file(tensors, path)
    assert_close(probe(tmp_path), reference(model))


# The text part of multimodal checkpoints


def make_gemma3_multimodal(directory):
    text = dict(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=6,
        initializer_range=0.2,
        **by_layer_type(
            dict(rope_type="linear", factor=8.0, rope_theta=1e6),
            dict(rope_type="default", rope_theta=1e4),
        ),
    )
    vision = dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=96
    )
    model = randomize(transformers.Gemma3ForConditionalGeneration(config).eval())
    model.save_pretrained(directory / "model")
    return model


PREFIXES = {
    "as saved": lambda name: name,
    "in memory": lambda name: re.sub(r"^language_model\.model", "model.language_model", name),
    "doubled": lambda name: re.sub(r"^language_model", "model.language_model", name),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_text_part_of_multimodal_gemma3(tmp_path, prefix):
    model = make_gemma3_multimodal(tmp_path)
    rename_tensors(tmp_path, PREFIXES[prefix])
    assert_close(probe(tmp_path), reference(model))
    assert_close(probe(tmp_path, mode="cached", chunk=4), reference(model))


def test_multimodal_gemma3_config_that_leaves_out_the_defaults(tmp_path):
    """The 4b, 12b and 27b configs on the Hub name only what differs from the defaults."""
    model = make_gemma3_multimodal(tmp_path)

    def change(config):
        text = config["text_config"]
        for name in (
            "layer_types",
            "rope_parameters",
            "tie_word_embeddings",
            "hidden_activation",
            "rms_norm_eps",
            "attention_bias",
            "use_bidirectional_attention",
            "final_logit_softcapping",
            "_sliding_window_pattern",
        ):
            text.pop(name, None)
        text["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
        config.pop("tie_word_embeddings", None)

    rewrite_config(tmp_path, change)
    assert_close(probe(tmp_path), reference(model))


def test_adapter_of_multimodal_gemma3_has_the_names_of_peft(tmp_path):
    model = make_gemma3_multimodal(tmp_path)
    targets = r".*language_model.*\.(q_proj|o_proj|up_proj)"
    theirs = reference(make_adapter(model, tmp_path / "adapter", target_modules=targets))
    assert_close(probe(tmp_path, adapters=["adapter"], save_adapter="copy"), theirs)
    names = [set(load_file(tmp_path / d / "adapter_model.safetensors")) for d in ("adapter", "copy")]
    assert names[0] == names[1]
    probe(tmp_path, adapters=["adapter"], merge="merged")
    check_merged(tmp_path, theirs)


def test_saved_embedding_of_multimodal_gemma3_has_the_name_of_peft(tmp_path):
    model = make_gemma3_multimodal(tmp_path)
    adapted = make_adapter(model, tmp_path / "adapter", target_modules=r".*language_model.*\.o_proj", modules_to_save=["embed_tokens"])
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "modules_to_save" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    assert_close(probe(tmp_path, adapters=["adapter"], save_adapter="copy"), reference(adapted))
    names = [set(load_file(tmp_path / d / "adapter_model.safetensors")) for d in ("adapter", "copy")]
    assert names[0] == names[1]


@pytest.mark.parametrize("family", FIRST)
def test_a_16_bit_checkpoint_serves_in_float32_with_the_logits_of_float32(tmp_path, family):
    dtype = torch.float16 if family in ("Phi3", "Mixtral") else torch.bfloat16
    save(FIRST[family], tmp_path, dtype=dtype)
    exact = reference(reopened(tmp_path))
    assert_close(probe(tmp_path, mode="cached", chunk=5, prefill=9, pack=True), exact)


def by_rows(w, largest, rounded):
    scale = (w.abs().amax(1, keepdim=True) / largest).clamp_min(1e-30)
    return rounded(w / scale) * scale


def by_groups(w):
    groups = w.unflatten(1, (-1, 128))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp_min(1e-30)
    return (((groups - low) / scale).round().clamp(0, 15) * scale + low).flatten(1)


ROUNDED = {
    "int8": lambda w: by_rows(w, 127, torch.round),
    "int4": by_groups,
    "fp8": lambda w: by_rows(w, 448, lambda x: x.to(torch.float8_e4m3fn).float()),
}


def assert_near(ours, theirs, rounds):
    """Within float32's tolerance; where activations are rounded to 16 bits, within 2^-11 of the largest logit, an eighth of what bfloat16
    would round logits alone by."""
    tolerance = max(row.abs().max().item() for row in theirs) / 2048 if rounds else 1e-3
    assert_close(ours, theirs, tolerance)


@pytest.mark.parametrize("blocks", ROUNDED)
@pytest.mark.parametrize("name", ["olmo2-mqa-tied", "smollm3", "phi3", "granite"])
def test_quantised_logits_are_those_of_the_rounded_weights_in_float32(tmp_path, name, blocks):
    sizes = dict(hidden_size=128, intermediate_size=256, initializer_range=0.05)
    save(name, tmp_path, dtype=torch.bfloat16, **sizes)
    model, head = reopened(tmp_path), "int8" if blocks == "int4" else blocks
    with torch.no_grad():
        for name, weight in model.model.layers.named_parameters():
            if weight.dim() < 2 or name.endswith("gate.weight"):
                continue
            matrices = weight if weight.dim() == 3 else weight[None]
            for matrix in matrices:
                matrix.copy_(ROUNDED[blocks](matrix))
        model.lm_head.weight.copy_(ROUNDED[head](model.lm_head.weight))
    ours = probe(tmp_path, mode="cached", chunk=5, prefill=9, pack=True, blocks=blocks, head=head)
    assert_near(ours, reference(model), blocks != "fp8")


# GPT-OSS as OpenAI published it


def test_mxfp4_experts_are_read(tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    sizes = dict(hidden_size=64, intermediate_size=96, dtype=torch.bfloat16)
    dense = save("gpt-oss", tmp_path / "dense", **sizes)
    tensors = dense.state_dict()
    torch.manual_seed(3)
    for layer in range(3):
        for module, out, groups in [("gate_up_proj", 192, 2), ("down_proj", 64, 3)]:
            name = f"model.layers.{layer}.mlp.experts.{module}"
            blocks = torch.randint(0, 256, (6, out, groups, 16), dtype=torch.uint8)
            scales = torch.randint(121, 126, (6, out, groups), dtype=torch.uint8)
            tensors.pop(name).copy_(convert_moe_packed_tensors(blocks, scales))
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    dense.save_pretrained(tmp_path / "dense" / "model")
    shutil.copytree(tmp_path / "dense" / "model", tmp_path / "model")
    save_file(tensors, tmp_path / "model" / "model.safetensors")

    def change(config):
        skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}

    rewrite_config(tmp_path, change)
    assert_close(probe(tmp_path), reference(reopened(tmp_path / "dense")))


# Refusals: one line that names what is wrong


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("gemma2", dict(use_bidirectional_attention=True), ["use_bidirectional_attention"]),
        ("gemma2", dict(hidden_activation="relu"), ["relu"]),
        ("granite4", dict(layer_types=["mamba", "attention", "mamba"]), ["mamba"]),
        ("granite4", dict(layer_types=None), ["mamba"]),
        ("phi3-longrope-short", dict(rope_parameters=longrope(10, 64)), ["short_factor", "6"]),
        ("deepseek-v2-lite", dict(topk_method="noaux"), ["noaux"]),
        ("deepseek-v3", dict(n_group=3), ["n_group"]),
        ("qwen3-moe", dict(num_experts_per_tok=7), ["num_experts_per_tok"]),
        ("gpt-oss", dict(layer_types=["chunked_attention"] * 3), ["chunked_attention"]),
        ("smollm3", dict(no_rope_layers=[1]), ["no_rope_layers"]),
        ("deepseek-v3", dict(quantization_config={"quant_method": "fp8"}), ["fp8"]),
    ],
    ids=str,
)
def test_config_is_refused_by_name(tmp_path, name, changes, words):
    save(name, tmp_path)
    rewrite_config(tmp_path, lambda config: {**config, **changes})
    message = refusal(tmp_path)
    assert len(message.strip().splitlines()) == 1
    for word in words:
        assert word in message


# config.json alone, of models that people use


def read_config(directory, config):
    (directory / "model").mkdir()
    (directory / "model" / "config.json").write_text(json.dumps(config))
    return run_probe(directory, spec=True)


@pytest.mark.parametrize("name", ACCEPTED)
def test_known_config_is_read(tmp_path, name):
    config, parameters, windows = ACCEPTED[name]
    done = read_config(tmp_path, config)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)
    assert spec["parameters"] == parameters
    assert sum(layer["window"] > 0 for layer in spec["layers"]) == windows


@pytest.mark.parametrize("name", REFUSED)
def test_known_config_is_refused_by_name(tmp_path, name):
    config, words = REFUSED[name]
    done = read_config(tmp_path, config)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr
