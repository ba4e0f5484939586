"""Speculative decoding by prompt look-up: the same answers, token by token, as without it."""

import concurrent.futures
import json
import re
import shutil
import urllib.request

import pytest
from checkpoints import make_model, torch
from conftest import EXAMPLE_MODEL, example_server
from test_families import MODELS
from transformers import AutoModelForCausalLM

CONFIG = json.dumps({"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 1})
REPEATING = "The cat sat on the mat. The dog sat on the mat. The cat sat on the"
FAMILIES = ["gemma2", "gemma3", "gpt-oss", "deepseek-v3", "phi3-longrope-short"]


@pytest.fixture(scope="module")
def plain(lorry, serve, tmp_path_factory):
    with example_server(lorry, serve, tmp_path_factory.mktemp("plain"), "org/m") as running:
        yield running


@pytest.fixture(scope="module")
def drafting(lorry, serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("drafting")
    with example_server(lorry, serve, directory, "org/m", "--speculative-config", CONFIG) as running:
        yield running


def counter(server, name):
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as response:
        return float(re.search(rf"^lorry:{name}{{.*}} (\S+)$", response.read().decode(), re.M)[1])


def complete(server, prompt, **fields):
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 60, "return_token_ids": True}
    return server.post("/v1/completions", body | fields)["choices"][0]


def test_greedy_text_equals_transformers_and_drafts_come_true(drafting, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE_MODEL, dtype=torch.float32).eval()
    ids = tokenizer(REPEATING)["input_ids"]
    wanted = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=60)[0, len(ids) :].tolist()
    assert complete(drafting, REPEATING)["token_ids"] == wanted
    assert complete(drafting, REPEATING, max_tokens=1)["token_ids"] == wanted[:1]
    endless = complete(drafting, REPEATING, max_tokens=400, ignore_eos=True)["token_ids"]
    assert len(endless) == 400
    assert counter(drafting, "spec_decode_num_accepted_tokens_total") > 0


FIELDS = [
    {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    {"temperature": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2},
    {"temperature": 0.9, "repetition_penalty": 1.1, "min_p": 0.02},
    {"temperature": 0, "repetition_penalty": 1.2, "logit_bias": {"11": 2}},
    {"temperature": 0.5, "stop": ["cat"], "logprobs": 3},
    {"temperature": 0, "stop": [" mat"], "ignore_eos": True},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_seed_draws_the_same_tokens_with_and_without_drafts(plain, drafting, fields):
    for seed in range(4):
        wanted = complete(plain, REPEATING, seed=seed, **fields)
        got = complete(drafting, REPEATING, seed=seed, **fields)
        logprobs = wanted.pop("logprobs"), got.pop("logprobs")
        assert got == wanted
        if logprobs[0]:
            assert got["token_ids"] and logprobs[1]["tokens"] == logprobs[0]["tokens"]
            assert logprobs[1]["token_logprobs"] == pytest.approx(logprobs[0]["token_logprobs"], abs=1e-4)


def test_many_at_once_answer_as_one_at_a_time(drafting):
    prompts = [f"{i} {REPEATING}" for i in range(12)]
    alone = [complete(drafting, prompt)["token_ids"] for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert [choice["token_ids"] for choice in pool.map(lambda p: complete(drafting, p), prompts)] == alone


@pytest.mark.parametrize("name", FAMILIES)
def test_families_answer_as_transformers_does(lorry, serve, tmp_path, name):
    family, options = MODELS[name]
    model = make_model(family, **options)
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EXAMPLE_MODEL / file, tmp_path / "model")
    where = ("--bucket", tmp_path / "bucket", "--model", "m")
    lorry("import-model", tmp_path / "model", *where)
    flags = ("--base", "--dtype", "float32", "--speculative-config", CONFIG)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * 4
    with serve(*where, *flags) as server:
        for ids in (prompt, prompt, prompt[:7]):
            wanted = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=100)[0, len(ids) :].tolist()
            assert complete(server, ids, max_tokens=100, ignore_eos=True)["token_ids"] == wanted
        assert counter(server, "spec_decode_num_draft_tokens_total") > 0


def test_wrong_configurations_are_named(lorry, tmp_path):
    for config, words in (
        ("{", "--speculative-config"),
        ('{"method": "eagle"}', "ngram"),
        ('{"method": "ngram", "num_speculative_tokens": 0}', "num_speculative_tokens"),
        ('{"method": "ngram", "tokens": 3}', "there is no 'tokens'"),
        ('{"method": "ngram", "prompt_lookup_max": 2, "prompt_lookup_min": 3}', "prompt_lookup_min"),
    ):
        done = lorry("serve", "--bucket", tmp_path, "--model", "m", "--speculative-config", config, code=2)
        assert words in done.stderr
