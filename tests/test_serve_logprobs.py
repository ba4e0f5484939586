"""Log-probabilities of answers and of prompts, compared with `transformers`."""

import openai
import pytest
import torch
from conftest import EXAMPLE_MODEL, example_server
from transformers import AutoModelForCausalLM

TEXTS = ["Question: What is 3+4?\nAnswer: 7", "The sky is blue today", "Grüße 🙂 你好, wie geht's?"]


@pytest.fixture(scope="module")
def client(lorry, serve, tmp_path_factory):
    with example_server(lorry, serve, tmp_path_factory.mktemp("logprobs"), "m") as server:
        yield server.client()


@pytest.fixture(scope="module")
def log_softmax():
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE_MODEL, dtype=torch.float32).eval()

    @torch.no_grad()
    def of(ids):
        """(positions, vocabulary): row i is what the model expects after ids[: i + 1]."""
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)

    return of


def score(client, prompt, **options):
    options = {"max_tokens": 0, "logprobs": 1, "temperature": 0} | options
    return client.completions.create(model="m", prompt=prompt, echo=True, **options).choices


def close(got, wanted):
    return got == pytest.approx(wanted, abs=1e-4)


def key_of(data):
    """The text of a token in the lists, whose bytes may be part of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def bytes_of(key):
    if not key.startswith("bytes:"):
        return key.encode()
    return bytes(int(byte, 16) for byte in key[len("bytes:") :].split("\\x")[1:])


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("as_ids", [False, True])
def test_a_prompt_is_scored_as_transformers_does(client, tokenizer, log_softmax, max_tokens, as_ids):
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    choices = score(client, ids if as_ids else TEXTS, max_tokens=max_tokens)
    assert [choice.index for choice in choices] == [0, 1, 2]
    for choice, text, prompt in zip(choices, TEXTS, ids):
        lists = choice.logprobs
        wanted = log_softmax(prompt)
        assert len(lists.tokens) == len(prompt) + max_tokens
        assert len({len(x) for x in (lists.tokens, lists.token_logprobs, lists.top_logprobs, lists.text_offset)}) == 1
        assert lists.token_logprobs[0] is None and lists.top_logprobs[0] is None
        follow = prompt[1:] + ([int(wanted[-1].argmax())] if max_tokens else [])
        rows = wanted[: len(follow)]
        assert close(lists.token_logprobs[1:], rows.gather(1, torch.tensor(follow)[:, None])[:, 0].tolist())
        assert close([max(top.values()) for top in lists.top_logprobs[1:]], rows.max(-1).values.tolist())
        # Whether the token was the likeliest, as a harness asks.
        for token, top, row, i in zip(lists.tokens[1:], lists.top_logprobs[1:], rows, follow):
            assert (max(top, key=top.get) == token) == (int(row.argmax()) == i)
        assert b"".join(map(bytes_of, lists.tokens[: len(prompt)])).decode() == text
        assert choice.text.startswith(text)
        for token, offset in zip(lists.tokens[: len(prompt)], lists.text_offset):
            if not token.startswith("bytes:"):
                assert text[offset : offset + len(token)] == token


def test_choices_of_a_multiple_choice_task_are_ranked_as_transformers_ranks_them(client, tokenizer, log_softmax):
    """What lm-evaluation-harness's `local-completions` sends for a task, and how it reads the answer."""
    context, endings = "Question: What is 3+4?\nAnswer:", [" 7", " 8", " blue"]
    requests = [tokenizer(context + ending)["input_ids"] for ending in endings]
    start = len(tokenizer(context)["input_ids"])
    choices = score(client, requests, max_tokens=1, seed=1234)
    for choice, ids in zip(choices, requests):
        got = sum(choice.logprobs.token_logprobs[start:-1])  # the last is the token that was asked for
        rows = log_softmax(ids)
        assert got == pytest.approx(sum(float(rows[i - 1, ids[i]]) for i in range(start, len(ids))), abs=1e-4)
        greedy = all(
            token == max(top, key=top.get)
            for token, top in zip(choice.logprobs.tokens[start:-1], choice.logprobs.top_logprobs[start:-1])
        )
        assert greedy == all(int(rows[i - 1].argmax()) == ids[i] for i in range(start, len(ids)))


def test_a_streamed_echo_brings_the_scores_of_the_prompt(client):
    whole = score(client, TEXTS[0], max_tokens=4)[0]
    stream = client.completions.create(
        model="m", prompt=TEXTS[0], echo=True, logprobs=1, max_tokens=4, temperature=0, stream=True
    )
    chunks = [chunk.choices[0] for chunk in stream]
    assert chunks[0].text == TEXTS[0]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    for name in ("tokens", "token_logprobs", "text_offset"):
        parts = [getattr(chunk.logprobs, name) for chunk in chunks if chunk.logprobs]
        assert sum(parts, []) == getattr(whole.logprobs, name)


def test_a_prompt_longer_than_one_step_and_as_long_as_the_context_is_scored(client, tokenizer, log_softmax):
    ids = (tokenizer(" ".join(TEXTS))["input_ids"] * 100)[:2048]
    lists = score(client, ids)[0].logprobs
    wanted = log_softmax(ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert close(lists.token_logprobs[1:], wanted)
    with pytest.raises(openai.BadRequestError, match="2048"):
        score(client, ids, max_tokens=1)


def test_a_token_that_is_part_of_a_character_shows_its_bytes(client, tokenizer):
    pieces = tokenizer("🙂")["input_ids"]
    assert len(pieces) > 1
    first = tokenizer.convert_ids_to_tokens(pieces)[0]
    lead = "🙂".encode()[: len(first)]
    forced = {"logit_bias": {str(pieces[0]): 100}, "temperature": 0, "max_tokens": 1}
    chat = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], logprobs=True, top_logprobs=3, **forced
    ).choices[0]
    entry = chat.logprobs.content[0]
    assert bytes(entry.bytes) == lead and entry.token == "\ufffd"
    lists = client.completions.create(model="m", prompt="hi", logprobs=3, **forced).choices[0].logprobs
    assert lists.tokens == [key_of(lead)]
    assert len(lists.top_logprobs[0]) == 4  # three and the one that was forced


def test_bytes_over_an_answer_are_its_text(client):
    options = {"temperature": 0, "max_tokens": 40, "logprobs": True}
    choice = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Wer bist du? 你是谁？ 🙂"}], **options
    ).choices[0]
    joined = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
    assert joined.decode(errors="replace") == choice.message.content
