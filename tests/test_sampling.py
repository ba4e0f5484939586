"""What the sampler keeps and how often it draws it, beside the LogitsProcessors of `transformers`.

Runs build/.../lorry_generate_probe ($LORRY_BUILD, default build/release) on random logits: every token
that the processors keep is drawn as often as they say (a chi-square test with a fixed seed), no other.
"""

import json
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import save_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release"))
PROBE = BUILD / "lorry_generate_probe"
pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

VOCAB = 300
DRAWS = 20000
HISTORY = dict(prompt=[1, 2, 3, 50, 51], output=[4, 4, 4, 9, 50])

ROWS = {
    "temperature 0.7": dict(temperature=0.7),
    "temperature 1.8": dict(temperature=1.8),
    "top_k": dict(top_k=20),
    "top_p": dict(temperature=0.9, top_p=0.8),
    "min_p": dict(min_p=0.05),
    "qwen": dict(temperature=0.7, top_p=0.8, top_k=20),
    "repetition": dict(temperature=0.7, repetition_penalty=1.4, **HISTORY),
    "repetition below 1": dict(top_k=30, repetition_penalty=0.7, **HISTORY),
    "presence and frequency": dict(presence_penalty=1.5, frequency_penalty=0.5, **HISTORY),
    "bias": dict(temperature=0.8, top_p=0.95, logit_bias=[[7, 4.0], [8, -100.0]]),
    "all": dict(temperature=1.3, top_k=50, top_p=0.9, repetition_penalty=1.2, **HISTORY),
}


def reference(logits, row):
    """Probabilities of all tokens after the processors, in `generate`'s order."""
    scores = logits.clone().unsqueeze(0).double()
    prompt, output = row.get("prompt", [0]), row.get("output", [])
    for token, bias in row.get("logit_bias", []):
        scores[0, token] += bias
    if "repetition_penalty" in row:
        processor = transformers.RepetitionPenaltyLogitsProcessor(row["repetition_penalty"])
        scores = processor(torch.tensor([prompt + output]), scores)
    for token in set(output):  # the OpenAI API's formula
        scores[0, token] -= row.get("presence_penalty", 0)
        scores[0, token] -= row.get("frequency_penalty", 0) * output.count(token)
    warpers = [
        ("temperature", transformers.TemperatureLogitsWarper),
        ("top_k", transformers.TopKLogitsWarper),
        ("top_p", transformers.TopPLogitsWarper),
        ("min_p", transformers.MinPLogitsWarper),
    ]
    for name, warper in warpers:
        if name in row:
            scores = warper(row[name])(None, scores)
    return scores.softmax(-1)[0]


def probe(directory, logits, rows, draws):
    save_file({"logits": logits}, directory / "model.safetensors")
    request = {"bucket": str(directory), "logits": "", "rows": rows, "draws": draws}
    (directory / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [str(PROBE), str(directory / "request.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def chi_square(counts, probabilities):
    """The statistic and its degrees of freedom; tokens of few expected draws are one class."""
    expected = probabilities * counts.sum()
    rare = expected < 10
    observed = torch.cat([counts[~rare], counts[rare].sum().view(1)])
    wanted = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    terms = torch.where(wanted > 0, (observed - wanted) ** 2 / wanted.clamp(min=1e-9), 0)
    return terms.sum().item(), int((wanted > 0).sum()) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_follow_the_processors_of_transformers(tmp_path, dtype):
    torch.manual_seed(0)
    # All different: among equal logits at its border TopKLogitsWarper keeps more than k.
    values = torch.linspace(-7, 7, VOCAB).to(dtype)
    logits = torch.stack([values[torch.randperm(VOCAB)] for _ in ROWS])
    rows = [{**row, "seed": seed} for seed, row in enumerate(ROWS.values())]
    for i, (name, got) in enumerate(zip(ROWS, probe(tmp_path, logits, rows, DRAWS))):
        wanted = reference(logits[i].float(), rows[i])
        counts = torch.zeros(VOCAB, dtype=torch.double)
        for token, times in got["counts"]:
            counts[token] = times
        assert not (counts[wanted == 0] > 0).any(), f"{name}: a token was drawn that is cut"
        likely = wanted * DRAWS > 30  # absent by chance once in 1e13
        assert (counts[likely] > 0).all(), f"{name}: a token is missing that is kept"
        statistic, freedom = chi_square(counts, wanted)
        # Six standard deviations of a chi-square distribution above its mean.
        assert statistic < freedom + 6 * (2 * freedom + 1) ** 0.5 + 6, f"{name}: {statistic}"


def test_logprobs_are_of_the_model_whatever_was_asked_for(tmp_path):
    torch.manual_seed(1)
    logits = torch.randn(2, VOCAB) * 3
    wanted = logits.double().log_softmax(-1)
    rows = [
        dict(temperature=0, top_logprobs=5),
        dict(temperature=0.5, top_k=3, repetition_penalty=1.5, top_logprobs=5, **HISTORY),
    ]
    for i, got in enumerate(probe(tmp_path, logits, rows, 1)):
        [[token, _]] = got["counts"]
        assert got["logprob"] == pytest.approx(wanted[i][token].item(), abs=1e-5)
        values, ids = wanted[i].topk(5)
        assert [id for id, _ in got["top"]] == ids.tolist()
        assert [value for _, value in got["top"]] == pytest.approx(values.tolist(), abs=1e-5)
