"""Prompts that begin alike: what was computed of them is used again, and no answer changes."""

import concurrent.futures

import pytest
import torch
from conftest import EXAMPLE_MODEL, example_server
from transformers import AutoModelForCausalLM

SYSTEM = "You answer in one short line. " * 40
QUESTIONS = ["Who are you?", "What is 2+2?", "Tell me a story.", "Wer bist du? 你是谁？ 🙂"]
BLOCK = 32  # tokens of a cache block


@pytest.fixture(scope="module")
def server(lorry, serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("prefixes")
    with example_server(lorry, serve, directory, "org/m") as running:
        yield running


def ask(server, question, system=SYSTEM, **fields):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return server.post("/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 24} | fields)


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def texts(answer):
    return [choice["message"]["content"] for choice in answer["choices"]]


@pytest.fixture(scope="module")
def expected(tokenizer):
    """{question: text} by transformers."""
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE_MODEL, dtype=torch.float32).eval()
    out = {}
    for question in QUESTIONS:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        answer = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=24)[0, len(ids) :]
        out[question] = tokenizer.decode(answer, skip_special_tokens=True)
    return out


def test_greedy_text_equals_transformers_whether_the_prefix_was_there_or_not(server, expected):
    for question in QUESTIONS + QUESTIONS:
        assert texts(ask(server, question)) == [expected[question]]
    usage = ask(server, QUESTIONS[0])["usage"]
    tokens = usage["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == (tokens - 1) // BLOCK * BLOCK


def test_requests_at_once_share_what_one_of_them_computes(server, expected):
    salt = {"cache_salt": "at once"}  # nothing is there yet
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda question: ask(server, question, **salt), QUESTIONS * 4))
    assert [texts(answer) for answer in answers] == [[expected[question]] for question in QUESTIONS * 4]
    assert sum(cached(answer) == 0 for answer in answers) == 1


def test_choices_of_a_request_are_computed_together(server, expected):
    answer = ask(server, QUESTIONS[0], n=4, cache_salt="choices")
    assert texts(answer) == [expected[QUESTIONS[0]]] * 4
    assert cached(answer) == 0  # of the first choice


def test_a_salt_shares_with_its_own_alone(server):
    ask(server, QUESTIONS[0])
    assert cached(ask(server, QUESTIONS[0], cache_salt="a")) == 0
    assert cached(ask(server, QUESTIONS[0], cache_salt="b")) == 0
    assert cached(ask(server, QUESTIONS[0], cache_salt="a")) > 0


def test_a_prompt_that_is_scored_has_all_its_scores(server):
    fields = {"prompt": SYSTEM, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    first, second = (server.post("/v1/completions", fields)["choices"][0]["logprobs"] for _ in range(2))
    assert first["token_logprobs"][0] is None
    assert all(isinstance(value, float) for value in first["token_logprobs"][1:])
    assert first == second


def test_a_small_cache_evicts_and_answers_alike(lorry, serve, tmp_path, expected):
    with example_server(lorry, serve, tmp_path, "org/m", "--kv-cache-tokens", "640") as running:
        for i in range(3):
            assert texts(ask(running, "Hello", system=f"{i} " + "nothing of note " * 100)) is not None
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda question: ask(running, question), QUESTIONS))
            assert [texts(answer) for answer in answers] == [[expected[question]] for question in QUESTIONS]


def test_without_sharing_the_text_is_the_same_and_nothing_is_found(lorry, serve, tmp_path, expected):
    with example_server(lorry, serve, tmp_path, "org/m", "--no-enable-prefix-caching") as running:
        for _ in range(2):
            answer = ask(running, QUESTIONS[0])
            assert texts(answer) == [expected[QUESTIONS[0]]] and cached(answer) == 0
