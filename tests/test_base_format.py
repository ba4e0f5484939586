"""Training on a quantised base: the numbers of `bitsandbytes`, the losses of `peft`, memory, and what is published.

`nf4` and `fp8` below make the numbers again in torch. That they are bitsandbytes' is held by recorded digests
(record_nf4.py), and where it is installed, as tests/requirements.txt says, by itself.
"""

import json
import subprocess

import pytest
from conftest import SOAK, peak_rss
from model_configs import ACCEPTED
from record_nf4 import bitsandbytes_nf4, digest, matrix
from test_train import (
    BASE_OPTIONS,
    PROBE,
    SIZES,
    TARGETS_OF,
    assert_trained_as_by_trainer,
    command,
    interrupted,
    load_tuned,
    make_adapter,
    make_data,
    make_model,
    make_rows,
    metrics,
    train,
    without_rate,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

NF4 = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
    + [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
    + [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)


def dynamic_numbers():
    """The 8-bit numbers of the scales, arXiv:1511.04561."""
    numbers = [torch.tensor([0.0, 1.0])]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (i - 6)
        numbers += [middles, -middles]
    return torch.cat(numbers).sort().values


def nearest(values, numbers):
    """Indices of the nearest of ascending numbers, the lower one at a tie."""
    return torch.bucketize(values, (numbers[:-1] + numbers[1:]) / 2)


def double_quantised(scales):
    numbers, mean = dynamic_numbers(), scales.mean()
    padded = torch.nn.functional.pad(scales - mean, (0, -len(scales) % 256)).view(-1, 256)
    largest = padded.abs().amax(1, keepdim=True)
    # bitsandbytes rounds to a grid of 65536 first.
    grid = ((padded / largest.clamp_min(1e-38)).clamp(-1, 1) + 1) * 0.5 * 65535 + 0.5
    codes = nearest(2.0 * grid.int() / 65535 - 1, numbers)
    return (numbers[codes] * largest + mean).flatten()[: len(scales)]


def nf4(weight):
    blocks = weight.float().reshape(-1, 64)
    largest = blocks.abs().amax(1)
    scaled = (blocks * (1 / largest.clamp_min(1e-38)).unsqueeze(1)).clamp(-1, 1)
    numbers = NF4[nearest(scaled, NF4)] * double_quantised(largest).unsqueeze(1)
    return numbers.view(weight.shape).to(weight.dtype)


def fp8(weight):
    wide = weight.float()
    scale = (wide.abs().amax(1, keepdim=True) / 448).clamp_min(1e-30)
    return ((wide / scale).to(torch.float8_e4m3fn).float() * scale).to(weight.dtype)


FORMATS = {"nf4": nf4, "fp8": fp8}
RECORDED = {
    torch.float32: "0322efc128c0bb8a6a78de779be7d7ec031370380d3978bc145e6a34830fe177",
    torch.bfloat16: "eccfa1cd711b6e81ed7c949edd4c1e00617aebdc81f74e31d3581c068176443e",
    torch.float16: "10b992436cf905f7142826679e98f1c1d71a0769475f6840f6bd16804ae6d2fb",
}


@pytest.mark.parametrize("dtype", RECORDED, ids=str)
def test_the_numbers_are_those_that_bitsandbytes_recorded(dtype):
    assert digest(nf4(matrix().to(dtype))) == RECORDED[dtype]


@pytest.mark.parametrize("dtype", RECORDED, ids=str)
def test_the_numbers_are_those_of_the_installed_bitsandbytes(dtype):
    pytest.importorskip("bitsandbytes", reason="not installed; the recorded digests stand for it")
    torch.manual_seed(5)
    for deviation in (1e-3, 0.02, 1.0):
        weight = (torch.randn(384, 320) * deviation).to(dtype)
        assert torch.equal(nf4(weight), bitsandbytes_nf4(weight))


def is_quantised(name, tensor):
    """The matrices of the blocks' linear maps; not routers, which are parameters and no maps in lorry."""
    return (
        ".layers." in name
        and tensor.dim() >= 2
        and "norm" not in name
        and not name.endswith(("mlp.gate.weight", "router.weight"))
    )


@pytest.fixture
def bucket(tmp_path):
    make_model("qwen2", tmp_path / "bucket/models/m")
    make_data(tmp_path / "bucket", [make_rows(30, 1), make_rows(23, 2)])
    return tmp_path / "bucket"


@pytest.mark.parametrize("kind", ["qwen2", "llama", "phi3", "gemma3", "qwen3-moe"])
@pytest.mark.parametrize("name", FORMATS)
def test_twenty_steps_are_those_of_peft_on_the_quantised_numbers(tmp_path, kind, name):
    bucket = tmp_path / "bucket"
    make_model(kind, bucket / "models/m")
    rows = make_rows(53, 3)
    make_data(bucket, [rows[:30], rows[30:]])
    make_adapter(bucket, tmp_path / "start", targets=TARGETS_OF.get(kind, "all-linear"))
    train(bucket, adapter=tmp_path / "start", shuffle=False, max_steps=20, base_format=name, **BASE_OPTIONS)

    # As a checkpoint, which keeps experts apart as they are quantised.
    path = bucket / "models/m/model.safetensors"
    stored = load_file(path)
    save_file(
        {n: FORMATS[name](t) if is_quantised(n, t) else t for n, t in stored.items()}, path, {"format": "pt"}
    )
    assert_trained_as_by_trainer(bucket, load_tuned(bucket, tmp_path / "start"), rows, tmp_path)


def merge_check(bucket):
    return json.loads((bucket / "done/m/d/info.json").read_text())["merge_check"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_merged_model_is_the_checkpoint_with_the_adapter(bucket, name):
    done = subprocess.run(
        command(bucket, max_steps=12, base_format=name, **BASE_OPTIONS), capture_output=True, text=True, check=True
    )
    assert f"from those of the {name} base that was trained on" in done.stderr
    info = json.loads((bucket / "done/m/d/info.json").read_text())
    assert info["base_format"] == name and info["identity"]["options"]["base_format"] == name
    assert name in (bucket / "done/m/d/report.html").read_text()
    check = info["merge_check"]
    assert check["relative_rms"] < 1e-4 < 3e-3 < check["quantised_base_relative_rms"] < 1

    ids = torch.tensor([make_rows(1, 9)[0]["input_ids"]])
    fused = transformers.AutoModelForCausalLM.from_pretrained(bucket / "done/m/d/fused")
    with torch.no_grad():
        merged = fused(ids).logits
        adapted = load_tuned(bucket, bucket / "done/m/d/lora_model")(ids).logits
    assert (merged - adapted).abs().max() < 1e-4


def test_the_recorded_gap_is_that_of_the_two_models(bucket):
    """From `peft`'s own logits, on the tokens that the check takes."""
    train(bucket, max_steps=6, base_format="nf4", dtype="float32", **BASE_OPTIONS)
    ids = torch.tensor([make_rows(30, 1)[0]["input_ids"]])
    adapter = bucket / "done/m/d/lora_model"
    with torch.no_grad():
        merged = load_tuned(bucket, adapter)(ids).logits[0]
        tuned = load_tuned(bucket, adapter)
        base = tuned.get_base_model()
        for name, tensor in base.named_parameters():
            if is_quantised(name, tensor) and "lora_" not in name:
                tensor.copy_(nf4(tensor))
        trained = tuned(ids).logits[0]
    spread = (merged - merged.mean(-1, keepdim=True)).square().mean().sqrt()
    gap = (merged - trained).square().mean().sqrt() / spread
    assert merge_check(bucket)["quantised_base_relative_rms"] == pytest.approx(gap.item(), rel=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stopped_run_goes_on_and_another_format_is_another_run(bucket, name):
    options = BASE_OPTIONS | dict(max_steps=60, save_steps=5, base_format=name)
    train(bucket, **options)
    weights = bucket / "done/m/d/lora_model/adapter_model.safetensors"
    expected, lines = weights.read_bytes(), without_rate(metrics(bucket))
    subprocess.run(["rm", "-rf", bucket / "done"], check=True)
    interrupted(bucket, options, 7)
    said = train(bucket, code=1, **(options | dict(base_format="dense")))
    assert f'base_format was "{name}", is not given' in said
    train(bucket, **options)
    assert weights.read_bytes() == expected
    assert without_rate(metrics(bucket)) == lines
    assert train(bucket, **options)["already_done"]


@pytest.mark.parametrize("extra", [dict(use_dora=True), dict(recompute="full", dtype="float16")])
def test_other_options_go_with_it(bucket, extra):
    train(bucket, max_steps=8, base_format="nf4", learning_rate=1e-3, **extra)
    losses = [line["loss"] for line in metrics(bucket)]
    assert all(loss == loss and 0 < loss < 10 for loss in losses)


BAD = {
    "name": (dict(base_format="int3"), "'int3' is not one of dense, fp8, nf4"),
    "full": (dict(base_format="nf4", full=True), "--full trains the weights that --base-format nf4 would freeze"),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD.keys())
def test_bad_options_are_named(bucket, options, message):
    assert message in train(bucket, code=1, max_steps=2, **options)
    assert not (bucket / "done").exists()


def test_a_matrix_that_does_not_fit_is_named(tmp_path):
    bucket = tmp_path / "bucket"
    make_model("llama", bucket / "models/m", hidden_size=36, intermediate_size=60, head_dim=12)
    make_data(bucket, [make_rows(20)])
    said = train(bucket, code=1, max_steps=1, base_format="nf4")
    assert "models/m: model.layers.0.self_attn.q_proj: a 48 x 36 matrix" not in said  # 27 blocks
    assert "models/m: model.layers.0.self_attn.k_proj: a 24 x 36 matrix cannot be held as nf4" in said
    train(bucket, max_steps=1, base_format="fp8")


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_not_numbers_are_named(bucket, name):
    path = bucket / "models/m/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    said = train(bucket, code=1, max_steps=2, base_format=name)
    assert "models/m: model.layers.1.mlp.up_proj.weight: it holds NaN or infinity" in said


def planned(bucket, **options):
    done = subprocess.run([PROBE, "plan", *command(bucket, **options)[1:]], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


GPUS = {"T4": 15360 << 20, "80 GB": 80 * 10**9}
LARGE = {
    "8 B on a T4": ("meta-llama/Llama-3.1-8B-Instruct", "T4", "nf4", "float16"),
    "8 B on 80 GB": ("meta-llama/Llama-3.1-8B-Instruct", "80 GB", "fp8", "bfloat16"),
    "70 B on 80 GB": ("meta-llama/Llama-3.3-70B-Instruct", "80 GB", "nf4", "bfloat16"),
}


def large_model(directory, name):
    """config.json and the safetensors header of a well-known model; its file is a hole."""
    config = ACCEPTED[name][0]
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**config))
    header, end = {}, 0
    for key, tensor in made.state_dict().items():
        begin, end = end, end + 2 * tensor.numel()
        header[key] = dict(dtype="BF16", shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    directory.mkdir(parents=True)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (directory / "config.json").write_text(json.dumps(config | dict(dtype="bfloat16")))
    (directory / "info.json").write_text("{}")


@pytest.mark.parametrize("case", LARGE)
def test_large_models_fit_where_the_plan_says(tmp_path, case):
    name, gpu, base_format, dtype = LARGE[case]
    bucket = tmp_path / "bucket"
    large_model(bucket / "models/m", name)
    make_data(bucket, [[{"input_ids": [5] * 2048, "assistant_masks": [1] * 2048}] * 8])
    options = dict(device="cuda", dtype=dtype, max_length=2048, recompute="full")
    memory = planned(bucket, base_format=base_format, **options)["memory"]
    assert memory < GPUS[gpu]
    spared = planned(bucket, **options)["memory"] - memory
    assert spared > (0.63 if base_format == "nf4" else 0.42) * 2 * ACCEPTED[name][1]


def test_eight_billion_dense_weights_fit_24_gb_with_recomputation_and_80_without(tmp_path):
    bucket = tmp_path / "bucket"
    large_model(bucket / "models/m", "meta-llama/Llama-3.1-8B-Instruct")
    make_data(bucket, [[{"input_ids": [5] * 4096, "assistant_masks": [1] * 4096}] * 8])
    plan = planned(bucket, device="cuda", dtype="bfloat16", max_length=4096, packing=True)
    assert plan["full"] < 24 * 10**9
    assert plan["none"] < GPUS["80 GB"]
    assert plan["none"] > plan["light"] > plan["full"] > plan["offload"]


@pytest.mark.skipif(not SOAK, reason="two minutes of processor time: ./dev soak")
def test_a_model_that_does_not_fit_trains_and_publishes(tmp_path):
    """Load, training, merge and its check of 1.4 GB of 16-bit weights take less than these alone."""
    bucket = tmp_path / "bucket"
    sizes = SIZES | dict(num_hidden_layers=40, hidden_size=1280, intermediate_size=3584, num_attention_heads=10)
    config = transformers.LlamaConfig(**sizes | dict(tie_word_embeddings=False))
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    path = bucket / "models/m"
    path.mkdir(parents=True)
    config.dtype = torch.bfloat16
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(path)
    (path / "info.json").write_text("{}")
    torch.manual_seed(1)
    tile = torch.randn(1 << 20).to(torch.bfloat16) * 0.02

    def numbers(tensor):
        copies = -(-tensor.numel() // tile.numel())
        return tile.repeat(copies)[: tensor.numel()].view(tensor.shape)

    tensors = {name: numbers(tensor) for name, tensor in model.state_dict().items()}
    dense_bytes = sum(tensor.nbytes for tensor in tensors.values())
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    del tensors, model
    make_data(bucket, [make_rows(30, 1, longest=400)])
    options = BASE_OPTIONS | dict(max_steps=1, max_length=100, lora_r=4, dtype="float32")
    options |= dict(batch_size=1, gradient_accumulation_steps=1, recompute="full")
    plan = planned(bucket, base_format="nf4", **options)["memory"]
    assert plan < dense_bytes < planned(bucket, **options)["memory"]
    megabytes, code, said = peak_rss(command(bucket, base_format="nf4", **options))
    assert code == 0, said
    assert megabytes * 1024 * 1024 < plan
    assert merge_check(bucket)["quantised_base_relative_rms"] > 0
