"""Small random checkpoints, what `transformers` makes of them, and lorry_model_probe.

Shared by test_model.py and test_families.py. The probe is build/.../lorry_model_probe
($LORRY_BUILD, default build/release).
"""

import json
import os
import pathlib
import subprocess

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from safetensors.torch import load_file, save_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROBE = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry_model_probe"

TOLERANCE = 1e-4
IDS = [
    [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3],
    [11],
    [60, 61, 62, 63, 2, 7],
    [7, 7, 7, 1, 2, 3, 40, 41, 42, 43, 44, 45, 46, 47],
]
SIZES = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.2,
)


def randomize(model):
    """Moves what starts at 0 or 1, so that a weight which is not read shows."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("bias", "sinks")) or "norm" in name:
            tensor.data += 0.3 * torch.randn_like(tensor)
    return model


def make_model(family, seed=0, model_class=None, **options):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    model = getattr(transformers, model_class or f"{family}ForCausalLM")(config)
    return randomize(model.eval())


def reference(model, ids=IDS):
    with torch.no_grad():
        return [model(torch.tensor([row])).logits[0].float() for row in ids]


def reopened(directory, dtype=torch.float32):
    """As a user opens it; `model.to` would round the rotary frequencies too."""
    return transformers.AutoModelForCausalLM.from_pretrained(directory / "model", dtype=dtype).eval()


def run_probe(directory, **request):
    request = {"bucket": str(directory), "model": "model", **request}
    (directory / "request.json").write_text(json.dumps(request))
    return subprocess.run(
        [str(PROBE), str(directory / "request.json")], capture_output=True, text=True
    )


def probe(directory, **request):
    """Runs the probe on `directory`/model; returns the logits of each sequence."""
    path = directory / "logits.safetensors"
    path.unlink(missing_ok=True)
    done = run_probe(
        directory,
        **{
            "output": path.name,
            "dtype": "float32",
            "device": os.environ.get("LORRY_DEVICE", "cpu"),
            "sequences": IDS,
            **request,
        },
    )
    assert done.returncode == 0, done.stderr
    if not path.exists():
        return None
    logits = load_file(path)
    return [logits[str(i)] for i in range(len(logits))]


def refusal(directory, **request):
    done = run_probe(directory, **{"check": True, **request})
    assert done.returncode == 1, done.stderr
    return done.stderr


def assert_close(ours, theirs, tolerance=TOLERANCE):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert mine.shape == other.shape
        worst = (mine - other).abs().max().item()
        assert worst <= tolerance, f"logits differ by {worst}"


def old_style(config):
    """config.json as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = {**rope, "type": kind} if kind != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    return config


def make_adapter(model, directory, seed=1, dtype=torch.float32, **options):
    """A random adapter saved by peft; returns the peft model."""
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", **options}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn_like(parameter)
            if dtype != torch.float32:
                parameter.data = parameter.data.to(dtype).float()
    adapted.save_pretrained(directory)
    if dtype != torch.float32:
        path = directory / "adapter_model.safetensors"
        save_file({k: v.to(dtype) for k, v in load_file(path).items()}, path)
    return adapted
