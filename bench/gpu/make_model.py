"""make_model.py FOLDER SHAPE DEVICE: a checkpoint of random weights in a model's shape, with torch
alone. Speed does not depend on the weights."""

import ctypes
import json
import pathlib
import sys

import torch

QWEN_VOCABULARY = 151936
SHAPES = {  # layers, width, MLP width, heads, key/value heads, head size, tied head, biases of q, k, v
    "small": (2, 64, 128, 4, 2, 16, True, True),
    "0.5b": (24, 896, 4864, 14, 2, 64, True, True),  # Qwen 2.5 0.5 B
    "8b": (32, 4096, 14336, 32, 8, 128, False, False),  # Llama 3.1 8 B
}
SHARD_BYTES = 4 << 30


def config(shape, vocabulary):
    layers, width, mlp, heads, kv_heads, head, tied, biased = SHAPES[shape]
    kind = "Qwen2" if biased else "Llama"
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }


def tensors(shape, vocabulary):
    """(name, shape) of each."""
    layers, width, mlp, heads, kv_heads, head, tied, biased = SHAPES[shape]
    yield "model.embed_tokens.weight", (vocabulary, width)
    for i in range(layers):
        at = f"model.layers.{i}"
        for name, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows * head, width)
            if biased:
                yield f"{at}.self_attn.{name}_proj.bias", (rows * head,)
        yield f"{at}.self_attn.o_proj.weight", (width, heads * head)
        for name in ("gate", "up"):
            yield f"{at}.mlp.{name}_proj.weight", (mlp, width)
        yield f"{at}.mlp.down_proj.weight", (width, mlp)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{name}.weight", (width,)
    yield "model.norm.weight", (width,)
    if not tied:
        yield "lm_head.weight", (vocabulary, width)


def bytes_of(shape):
    return 2 * torch.Size(shape).numel()


def shards(all_tensors):
    """Lists of tensors that fit a file."""
    shard, size = [], 0
    for name, shape in all_tensors:
        if shard and size + bytes_of(shape) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, shape))
        size += bytes_of(shape)
    yield shard


def random_tensor(name, shape, device):
    if "norm" in name:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, device=device) * 0.02).to(torch.bfloat16).cpu()


def write_shard(path, shard, device):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shard:
        end = at + bytes_of(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shard:
            tensor = random_tensor(name, shape, device)
            file.write((ctypes.c_char * bytes_of(shape)).from_address(tensor.data_ptr()))


def write_model(folder, shape, device, vocabulary):
    torch.manual_seed(0)
    (folder / "config.json").write_text(json.dumps(config(shape, vocabulary)))
    all_shards = list(shards(tensors(shape, vocabulary)))
    names, weights = [], {}
    for i, shard in enumerate(all_shards):
        names.append(f"model-{i + 1:05}-of-{len(all_shards):05}.safetensors")
        weights |= {name: names[-1] for name, _ in shard}
        write_shard(folder / names[-1], shard, device)
    if len(names) == 1:
        (folder / names[0]).rename(folder / "model.safetensors")
        return
    index = {"metadata": {}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main(folder, shape, device):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (pathlib.Path(__file__).parent / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    entries = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    write_model(folder, shape, device, entries if shape == "small" else max(entries, QWEN_VOCABULARY))


if __name__ == "__main__":
    main(*sys.argv[1:])
