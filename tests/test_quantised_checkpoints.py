"""Checkpoints that other programs quantised, against `transformers` in float32 with the numbers that they stand for.

The writers below follow the formats as their programs define them: GPTQ (AutoGPTQ's v1 checkpoints), AWQ (AutoAWQ's gemm layout) and
compressed-tensors (pack-quantized, int-quantized, float-quantized).
"""

import json

import pytest
import torch
from checkpoints import PROBE, assert_close, make_model, probe, reference, refusal, reopened, run_probe
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def asymmetric(w, group=128):
    """Codes of 4 bits (out, in), zeros of 1 to 15 and float16 scales (out, groups), and the numbers."""
    groups = w.unflatten(1, (-1, group))
    low, high = groups.amin(-1, keepdim=True).clamp_max(0), groups.amax(-1, keepdim=True).clamp_min(0)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.float()).round().clamp(1, 15)
    codes = ((groups / scale.float()).round() + zero).clamp(0, 15)
    numbers = ((codes - zero) * scale.float()).flatten(1)
    return codes.flatten(1).int(), zero.squeeze(-1).int(), scale.squeeze(-1), numbers


def words(codes, dim, order=range(8), bits=4):
    """Eight codes (four of 8 bits) along `dim` in each int32."""
    parts = codes.long().unflatten(dim, (-1, 32 // bits))
    total = sum(parts.select(dim + 1, c) << (bits * i) for i, c in enumerate(order))
    return torch.where(total >= 2**31, total - 2**32, total).int().contiguous()


def gptq(w, group=128):
    codes, zeros, scales, numbers = asymmetric(w, group)
    index = torch.arange(w.shape[1], dtype=torch.int32) // group
    parts = {"qweight": words(codes.t(), 0), "qzeros": words(zeros.t() - 1, 1), "scales": scales.t().contiguous()}
    return parts | {"g_idx": index}, numbers


def awq(w):
    codes, zeros, scales, numbers = asymmetric(w)
    parts = {"qweight": words(codes.t(), 1, AWQ_ORDER), "qzeros": words(zeros.t(), 1, AWQ_ORDER)}
    return parts | {"scales": scales.t().contiguous()}, numbers


def shape_of(w):
    return {"weight_shape": torch.tensor(w.shape)}


def packed_symmetric(w):
    groups = w.unflatten(1, (-1, 128))
    scale = (groups.abs().amax(-1, keepdim=True) / 7.5).bfloat16()
    codes = (groups / scale.float()).round().clamp(-8, 7)
    parts = {"weight_packed": words(codes.flatten(1) + 8, 1), "weight_scale": scale.squeeze(-1)}
    return parts | shape_of(w), (codes * scale.float()).flatten(1)


def packed_asymmetric(w):
    codes, zeros, scales, numbers = asymmetric(w)
    parts = {"weight_packed": words(codes, 1), "weight_scale": scales, "weight_zero_point": words(zeros, 0)}
    return parts | shape_of(w), numbers


def packed_bytes(w):
    scale = (w.abs().amax(1, keepdim=True) / 127).bfloat16()
    codes = (w / scale.float()).round().clamp(-128, 127)
    return {"weight_packed": words(codes + 128, 1, range(4), 8), "weight_scale": scale} | shape_of(w), codes * scale.float()


def int_rows(w):
    scale = w.abs().amax(1, keepdim=True) / 127
    codes = (w / scale).round().to(torch.int8)
    return {"weight": codes, "weight_scale": scale}, codes * scale


def float_rows(w):
    scale = w.abs().amax(1, keepdim=True) / 448
    codes = (w / scale).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


def float_matrix(w):
    scale = w.abs().max().reshape(1) / 448
    codes = (w / scale).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


GPTQ = dict(quant_method="gptq", bits=4, group_size=128, desc_act=False, sym=False)
COMPRESSED = dict(quant_method="compressed-tensors", quantization_status="compressed")
FORMATS = {
    "gptq": (gptq, GPTQ),
    "gptq-columns": (lambda w: gptq(w, w.shape[1]), GPTQ | dict(group_size=-1)),
    "awq": (awq, dict(quant_method="awq", bits=4, group_size=128, version="gemm", zero_point=True)),
    "packed-symmetric": (packed_symmetric, COMPRESSED | dict(format="pack-quantized")),
    "packed-asymmetric": (packed_asymmetric, COMPRESSED | dict(format="pack-quantized")),
    "packed-bytes": (packed_bytes, COMPRESSED | dict(format="pack-quantized")),
    "int-rows": (int_rows, COMPRESSED | dict(format="int-quantized")),
    "float-rows": (float_rows, COMPRESSED | dict(format="float-quantized")),
    "float-matrix": (float_matrix, COMPRESSED | dict(format="float-quantized")),
}


def write(directory, quantise, config):
    """A checkpoint whose blocks' matrices `quantise` made; returns the model with the numbers that they stand for."""
    sizes = dict(hidden_size=128, intermediate_size=256, initializer_range=0.05, tie_word_embeddings=False)
    make_model("Qwen2", **sizes).bfloat16().save_pretrained(directory / "model")
    model, path = reopened(directory), directory / "model" / "model.safetensors"
    tensors = load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("_proj.weight"):
                continue
            parts, numbers = quantise(weight.float())
            del tensors[name]
            tensors |= {name.removesuffix("weight") + part: tensor for part, tensor in parts.items()}
            weight.copy_(numbers)
    save_file(tensors, path)
    configure(directory, config)
    return model


def configure(directory, quantization):
    path = directory / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization}))


def failure(directory, **request):
    """Of reading the weights, which `refusal` does not."""
    done = run_probe(directory, output="logits.safetensors", dtype="float32", sequences=[[1]], **request)
    assert done.returncode == 1, done.stderr
    return done.stderr


# int8 and int4 round activations to 16 bits: within 2^-11 of the largest logit, an eighth of what bfloat16 would round logits alone by.
@pytest.mark.parametrize("name", FORMATS)
def test_logits_are_those_of_the_numbers_that_the_codes_stand_for(tmp_path, name):
    model = write(tmp_path, *FORMATS[name])
    theirs = reference(model)
    tolerance = max(row.abs().max().item() for row in theirs) / 2048
    assert_close(probe(tmp_path, mode="cached", chunk=5, prefill=9, pack=True), theirs, tolerance)


def test_groups_that_no_format_here_has_are_refused_by_name(tmp_path):
    write(tmp_path, lambda w: gptq(w, 64), GPTQ | dict(group_size=64))
    message = refusal(tmp_path, pack=True)
    assert "q_proj.qweight" in message and "groups of a multiple of 128" in message


def test_groups_by_activation_are_refused_by_name(tmp_path):
    def shuffled(w):
        parts, numbers = gptq(w)
        return parts | {"g_idx": parts["g_idx"].flip(0)}, numbers

    write(tmp_path, shuffled, GPTQ)
    # Of one group the order says nothing: down_proj has two.
    message = failure(tmp_path, pack=True)
    assert "down_proj.g_idx" in message and "desc_act" in message


def test_a_tensor_of_another_size_is_named(tmp_path):
    def cut(w):
        parts, numbers = awq(w)
        return parts | {"qweight": parts["qweight"][:, :-1].contiguous()}, numbers

    write(tmp_path, cut, FORMATS["awq"][1])
    assert "q_proj.qweight" in refusal(tmp_path, pack=True)


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(GPTQ, bits=3), "gptq"),
        (dict(GPTQ, desc_act=True), "gptq"),
        (dict(GPTQ, checkpoint_format="gptq_v2"), "gptq"),
        (dict(FORMATS["awq"][1], version="gemv"), "awq"),
        (dict(COMPRESSED, format="marlin-24"), "compressed-tensors"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, changes, word):
    write(tmp_path, gptq, changes)
    message = refusal(tmp_path, pack=True)
    assert word in message and "does not read" in message


def test_a_quantised_checkpoint_is_not_trained(tmp_path):
    write(tmp_path, *FORMATS["awq"])
    assert "can be served, not trained" in failure(tmp_path)
