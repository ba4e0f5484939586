"""Random shapes and options of every family beside `transformers`: packed and cached logits.

One that fails is run again with `-k "[17]"`.
"""

import json
import random

import pytest
from checkpoints import PROBE, assert_close, make_model, probe, reference
from conftest import SEED, SOAK

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")
SEEDS = 320 if SOAK else 16
KINDS = ["full_attention", "sliding_attention"]


def sizes(r, head_dims=(8, 12, 16, 20)):
    """The shape that all families have, and the size of a head."""
    kv_heads, groups, head_dim = r.choice([1, 2, 3]), r.choice([1, 2, 4]), r.choice(head_dims)
    heads = kv_heads * groups
    return dict(
        vocab_size=r.randrange(98, 300),
        hidden_size=heads * head_dim if r.random() < 0.5 else heads * 4 * r.randrange(2, 7),
        intermediate_size=4 * r.randrange(2, 40),
        num_hidden_layers=r.randrange(1, 6),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3]),
        tie_word_embeddings=r.random() < 0.5,
        hidden_act=r.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh"]),
        initializer_range=r.choice([0.05, 0.15]),
        pad_token_id=0,
    )


def rope(r, **more):
    base = dict(rope_theta=r.choice([1e3, 1e4, 5e5]), **more)
    original = r.choice([16, 64, 128])
    return r.choice(
        [
            dict(base, rope_type="default"),
            dict(base, rope_type="linear", factor=r.choice([2.0, 8.0])),
            dict(
                base,
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=r.choice([2.0, 4.0]),
                original_max_position_embeddings=original,
            ),
            dict(
                base,
                rope_type="yarn",
                factor=r.choice([2.0, 4.0, 40.0]),
                original_max_position_embeddings=original,
                **r.choice([{}, dict(beta_fast=16.0, beta_slow=2.0), dict(attention_factor=1.2)]),
            ),
        ]
    )


def without_head_dim(shape):
    """For families whose heads share out hidden_size."""
    shape = dict(shape)
    shape["hidden_size"] = shape["num_attention_heads"] * shape.pop("head_dim")
    return shape


def layer_types(r, shape):
    return [r.choice(KINDS) for _ in range(shape["num_hidden_layers"])]


def window(r):
    return r.choice([2, 5, 9, 100])


def llama(r):
    shape = sizes(r)
    biases = dict(attention_bias=r.random() < 0.3, mlp_bias=r.random() < 0.3)
    return "Llama", dict(shape, rope_parameters=rope(r), **biases)


def qwen2(r):
    shape = without_head_dim(sizes(r))
    sliding = dict(use_sliding_window=True, sliding_window=window(r), layer_types=layer_types(r, shape))
    return "Qwen2", dict(shape, rope_parameters=rope(r), **r.choice([{}, sliding]))


def qwen3(r):
    shape = sizes(r)
    sliding = dict(use_sliding_window=True, sliding_window=window(r), layer_types=layer_types(r, shape))
    return "Qwen3", dict(
        shape, rope_parameters=rope(r), attention_bias=r.random() < 0.3, **r.choice([{}, sliding])
    )


def mistral(r):
    return "Mistral", dict(sizes(r), rope_parameters=rope(r), sliding_window=r.choice([None, window(r)]))


def gemma2(r):
    shape = sizes(r) | dict(hidden_activation=r.choice(["gelu_pytorch_tanh", "silu"]))
    return "Gemma2", dict(
        shape,
        query_pre_attn_scalar=r.choice([8, 20, 144]),
        sliding_window=window(r),
        attn_logit_softcapping=r.choice([None, 2.0, 50.0]),
        final_logit_softcapping=r.choice([None, 5.0, 30.0]),
        layer_types=layer_types(r, shape),
    )


def gemma3(r):
    shape = sizes(r) | dict(hidden_activation=r.choice(["gelu_pytorch_tanh", "silu"]))
    return "Gemma3Text", dict(
        shape,
        model_class="Gemma3ForCausalLM",
        query_pre_attn_scalar=r.choice([8, 20, 144]),
        sliding_window=window(r),
        final_logit_softcapping=r.choice([None, 5.0]),
        layer_types=layer_types(r, shape),
    )


def phi3(r):
    shape = without_head_dim(sizes(r, head_dims=(8, 16)))
    return "Phi3", dict(shape, sliding_window=r.choice([None, window(r)]))


def olmo2(r):
    shape = without_head_dim(sizes(r))
    return "Olmo2", dict(shape, rope_parameters=rope(r), attention_bias=r.random() < 0.3)


def olmo3(r):
    shape = without_head_dim(sizes(r))
    return "Olmo3", dict(shape, sliding_window=window(r), layer_types=layer_types(r, shape))


def smollm3(r):
    shape = without_head_dim(sizes(r))
    layers = [r.randrange(2) for _ in range(shape["num_hidden_layers"])]
    return "SmolLM3", dict(shape, no_rope_layers=layers, rope_parameters=rope(r))


def granite(r):
    return "Granite", dict(
        without_head_dim(sizes(r)),
        rope_parameters=rope(r),
        embedding_multiplier=r.choice([1.0, 12.0]),
        attention_multiplier=r.choice([0.0625, 0.3]),
        residual_multiplier=r.choice([1.0, 0.22]),
        logits_scaling=r.choice([1.0, 6.0]),
    )


# Experts are drawn in multiples of four: the grouped products of `transformers` ask for it.
def experts(r):
    count = r.randrange(2, 9)
    return count, r.randrange(1, min(4, count + 1))


def qwen3_moe(r):
    count, active = experts(r)
    return "Qwen3Moe", dict(
        sizes(r),
        num_experts=count,
        num_experts_per_tok=active,
        moe_intermediate_size=4 * r.randrange(1, 16),
        norm_topk_prob=r.random() < 0.5,
        decoder_sparse_step=r.choice([1, 2]),
    )


def mixtral(r):
    count, active = experts(r)
    return "Mixtral", dict(
        sizes(r), num_local_experts=count, num_experts_per_tok=active, sliding_window=r.choice([None, window(r)])
    )


def gpt_oss(r):
    count, active = experts(r)
    shape = sizes(r) | dict(hidden_act="silu")
    return "GptOss", dict(
        shape,
        num_local_experts=count,
        num_experts_per_tok=active,
        sliding_window=window(r),
        layer_types=layer_types(r, shape),
        swiglu_limit=r.choice([0.5, 7.0]),
    )


def latent(r):
    heads = r.choice([1, 2, 4])
    groups = r.choice([1, 2, 4])
    rotated = 2 * r.randrange(2, 8)
    return dict(
        sizes(r),
        hidden_size=8 * r.randrange(2, 12),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=rotated,
        kv_lora_rank=2 * r.randrange(2, 20),
        q_lora_rank=r.choice([None, r.randrange(4, 40)]),
        qk_nope_head_dim=2 * r.randrange(2, 10),
        qk_rope_head_dim=rotated,
        v_head_dim=r.randrange(4, 24),
        n_routed_experts=groups * r.randrange(2, 4),
        n_shared_experts=r.choice([1, 2]),
        num_experts_per_tok=r.choice([1, 2]),
        moe_intermediate_size=4 * r.randrange(1, 16),
        first_k_dense_replace=r.randrange(3),
        routed_scaling_factor=r.choice([1.0, 2.5]),
        n_group=groups,
        topk_group=r.randrange(1, groups + 1),
    )


def deepseek_v2(r):
    options = latent(r) | dict(topk_method=r.choice(["greedy", "group_limited_greedy"]))
    return "DeepseekV2", options


def deepseek_v3(r):
    options = latent(r) | dict(norm_topk_prob=r.random() < 0.5, rope_interleave=r.random() < 0.5)
    return "DeepseekV3", options


FAMILIES = [llama, qwen2, qwen3, mistral, gemma2, gemma3, phi3, olmo2, olmo3, smollm3, granite]
FAMILIES += [qwen3_moe, mixtral, gpt_oss, deepseek_v2, deepseek_v3]


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_random_checkpoints_have_the_logits_of_transformers(tmp_path, seed):
    r = random.Random(seed)
    family, options = FAMILIES[seed % len(FAMILIES)](r)
    model = make_model(family, seed=seed, **options)
    model.save_pretrained(tmp_path / "model")
    lengths = [r.randrange(1, 90) for _ in range(r.randrange(1, 5))]
    ids = [[r.randrange(options["vocab_size"]) for _ in range(n)] for n in lengths]
    theirs = reference(model, ids)
    # Larger logits are rounded more.
    tolerance = 1e-4 * max(1.0, max(t.abs().max().item() for t in theirs) / 10)
    print(json.dumps([family, options, lengths]))
    ours = probe(tmp_path, sequences=ids)
    assert_close(ours, theirs, tolerance)
    prefill, chunk = r.randrange(1, 60), r.randrange(1, 40)
    cached = probe(tmp_path, sequences=ids, mode="cached", prefill=prefill, chunk=chunk)
    assert_close(cached, theirs, tolerance)
