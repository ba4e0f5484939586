"""The server as a user meets it: the `openai` client against `lorry serve` on the example model."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

import openai
import pytest
import torch
from conftest import EXAMPLE_MODEL, Server, find_free_port
from fault_proxy import fault_proxy
from s3 import s3  # noqa: F401 (a fixture)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

QUESTIONS = [
    "Who are you?",
    "What is 2+2?",
    "Tom has 5 apples and eats 2. How many are left?",
    "A book costs 8 dollars. How much do 7 books cost?",
    "Tell me a story.",
    "Wer bist du? 你是谁？ 🙂",
    "Explain rain in one line.",
    "Anna runs 3 miles a day. How far does she run in 2 weeks?",
]
CONTEXT = 2048  # of the example model


@pytest.fixture(scope="module")
def bucket_with_model(lorry, tmp_path_factory):
    bucket = tmp_path_factory.mktemp("serve") / "bucket"
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "org/demo")
    return bucket


@pytest.fixture(scope="module")
def server(bucket_with_model, serve):
    flags = ("--model", "org/demo", "--base", "--dtype", "float32", "--served-model-name", "gpt")
    with serve("--bucket", bucket_with_model, *flags) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE_MODEL, dtype=torch.float32).eval()

    def generate(ids, max_new_tokens):
        out = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=max_new_tokens
        )
        return out[0, len(ids) :].tolist()

    return generate


def ask(client, question, **options):
    options = {"model": "org/demo", "temperature": 0, "max_tokens": 80} | options
    return client.chat.completions.create(
        messages=[{"role": "user", "content": question}], **options
    )


def text_of(response):
    return response.choices[0].message.content


def counts_of(response):
    """Without what the cache held, which an earlier request changes."""
    return response.usage.model_dump(exclude={"prompt_tokens_details"})


def test_models_are_listed_and_found_by_name(client):
    assert [m.id for m in client.models.list().data] == ["org/demo", "gpt"]
    assert client.models.retrieve("org/demo").id == "org/demo"
    with pytest.raises(openai.NotFoundError, match="org/demo"):
        client.models.retrieve("nothing")


def test_greedy_chat_equals_transformers(client, tokenizer, reference):
    for question in QUESTIONS:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        wanted = reference(ids, 80)
        response = ask(client, question)
        assert text_of(response) == tokenizer.decode(wanted, skip_special_tokens=True)
        assert response.usage.prompt_tokens == len(ids)
        assert response.usage.completion_tokens == len(wanted)
        assert response.choices[0].finish_reason == ("length" if len(wanted) == 80 else "stop")


def test_eight_at_once_equal_one_at_a_time(client):
    alone = [text_of(ask(client, question)) for question in QUESTIONS]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: text_of(ask(client, question)), QUESTIONS))
    assert together == alone


def test_a_stream_holds_the_same_text_and_the_usage(client):
    for question in QUESTIONS:
        whole = ask(client, question)
        chunks = list(ask(client, question, stream=True, stream_options={"include_usage": True}))
        assert chunks[0].choices[0].delta.role == "assistant"
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(pieces) == text_of(whole)
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].choices == [] and counts_of(chunks[-1]) == counts_of(whole)


def test_completions_take_text_lists_and_ids(client, tokenizer, reference):
    prompts = ["Question: What is 3+4?\nAnswer:", "Once upon"]
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    wanted = [tokenizer.decode(reference(i, 12), skip_special_tokens=True) for i in ids]
    for prompt in (prompts, ids):
        response = client.completions.create(
            model="org/demo", prompt=prompt, temperature=0, max_tokens=12
        )
        assert [choice.text for choice in response.choices] == wanted
    response = client.completions.create(
        model="org/demo", prompt=prompts[0], temperature=0, max_tokens=12, echo=True
    )
    assert response.choices[0].text == prompts[0] + wanted[0]
    stream = client.completions.create(
        model="org/demo", prompt=prompts[1], temperature=0, max_tokens=12, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == wanted[1]


def test_the_same_seed_gives_the_same_text(client):
    def sampled(seed):
        return text_of(ask(client, QUESTIONS[2], temperature=2.0, seed=seed, max_tokens=40))

    first = sampled(1)
    assert sampled(1) == first
    assert any(sampled(seed) != first for seed in range(2, 6))


def test_top_k_one_is_greedy_at_any_temperature(client):
    greedy = text_of(ask(client, QUESTIONS[2]))
    assert text_of(ask(client, QUESTIONS[2], temperature=5, extra_body={"top_k": 1})) == greedy
    assert text_of(ask(client, QUESTIONS[2], temperature=5, top_p=1e-6)) == greedy


def test_max_tokens_ends_the_answer(client):
    response = ask(client, QUESTIONS[0], max_tokens=3)
    assert response.choices[0].finish_reason == "length"
    assert response.usage.completion_tokens == 3
    response = ask(client, QUESTIONS[0], max_tokens=None, max_completion_tokens=2)
    assert response.usage.completion_tokens == 2


def test_stop_strings_are_found_across_tokens_and_not_emitted(client):
    full = text_of(ask(client, QUESTIONS[0]))
    stop = full[5:12]
    before = full[: full.index(stop)]
    response = ask(client, QUESTIONS[0], stop=["never", stop])
    assert text_of(response) == before
    assert response.choices[0].finish_reason == "stop"
    chunks = list(ask(client, QUESTIONS[0], stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == before
    # A stop string that never completes holds nothing back at the end.
    assert text_of(ask(client, QUESTIONS[0], stop=full[-3:] + "?")) == full


def test_several_choices_differ_and_have_their_places(client):
    response = ask(client, QUESTIONS[2], n=3, temperature=1.5, seed=5)
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in response.choices}) > 1


def test_logprobs_agree_with_the_text(client):
    choice = ask(client, QUESTIONS[0], logprobs=True, top_logprobs=2).choices[0]
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    for entry in choice.logprobs.content:
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
        assert entry.top_logprobs[0].token == entry.token


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"stop": 5}, "stop"),
        ({"top_p": 3}, "top_p"),
        ({"n": 0}, "n"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(server, fields, named):
    body = {"model": "org/demo", "messages": [{"role": "user", "content": "hi"}]} | fields
    error = post_error(server, "/v1/chat/completions", json.dumps(body).encode())
    assert error.code == 400
    inner = json.loads(error.read())["error"]
    assert inner["param"] == named and named in inner["message"]
    assert inner["type"] == "invalid_request_error"


def post_error(server, path, data, headers=None, method="POST"):
    request = urllib.request.Request(server.url + path, data, headers or {}, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    return caught.value


def test_what_is_not_there_or_not_allowed(server, client):
    assert post_error(server, "/v1/chat/completions", b"{broken").code == 400
    assert post_error(server, "/v1/chat/completions", b"[" * 100_000).code == 400
    assert post_error(server, "/v1/nothing", b"{}").code == 404
    assert post_error(server, "/v1/models", b"{}").code == 405
    assert post_error(server, "/v1/chat/completions", None, method="GET").code == 405
    assert post_error(server, "/v1/completions", b" " * (33 << 20)).code == 413
    with pytest.raises(openai.NotFoundError, match="org/demo, gpt"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])


def test_a_prompt_that_is_too_long_names_both_lengths(client, tokenizer):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "word " * 5000)
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT) in str(caught.value)
    # max_tokens beyond the context is cut, not refused.
    assert text_of(ask(client, QUESTIONS[0], max_tokens=100_000))


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no bf16 products: --dtype auto is float32",
)
def test_a_checkpoint_that_names_no_dtype_is_served_in_its_own(lorry, serve, tmp_path):
    shutil.copytree(EXAMPLE_MODEL, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config.pop("dtype") == "bfloat16"
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    bucket = tmp_path / "bucket"
    lorry("import-model", tmp_path / "model", "--bucket", bucket, "--model", "org/demo")

    def logprobs(*flags):
        with serve("--bucket", bucket, "--model", "org/demo", "--base", *flags) as server:
            client = server.client()
            choice = ask(client, QUESTIONS[0], logprobs=True).choices[0]
            return [entry.logprob for entry in choice.logprobs.content]

    assert logprobs() == logprobs("--dtype", "bfloat16")
    assert logprobs() != logprobs("--dtype", "float32")


def test_a_trained_model_is_asked_as_its_template_was_used_in_training(lorry, serve, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{{ start }}{% endif %}")
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]
    row = {"messages": messages + [{"role": "assistant", "content": "a"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    bucket = ("--bucket", tmp_path / "b")
    lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk")
    lorry("import-model", EXAMPLE_MODEL, *bucket, "--model", "m", "--chat-template", tmp_path / "t.jinja")
    lorry("pretokenize", *bucket, "--system-as-user", "--template-kwargs", '{"start": "one two three "}')
    lorry("train", *bucket, "--max-steps", 1)
    with serve(*bucket, "--model", "m", "--dataset", "talk") as server:
        client = server.client()

        def prompt_tokens(**options):
            return client.chat.completions.create(model="m/talk", messages=messages, max_tokens=1,
                                                  **options).usage.prompt_tokens

        shorter = prompt_tokens(extra_body={"chat_template_kwargs": {"start": ""}})
        assert prompt_tokens() > shorter
        with pytest.raises(openai.BadRequestError, match="no system role"):
            client.chat.completions.create(model="m", messages=messages, max_tokens=1)


def test_without_a_model_the_served_one_answers(server):
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0}
    answer = server.post("/v1/chat/completions", body)
    assert answer["model"] == "org/demo"


def test_content_may_be_a_list_of_parts(client):
    parts = [{"type": "text", "text": QUESTIONS[0]}]
    assert text_of(ask(client, parts)) == text_of(ask(client, QUESTIONS[0]))


def test_more_requests_than_fit_in_the_cache_all_get_their_answers(bucket_with_model, serve):
    flags = ("--model", "org/demo", "--base", "--dtype", "float32", "--kv-cache-tokens", 256)
    with serve("--bucket", bucket_with_model, *flags) as server:
        client = server.client()

        def long_answer(question):
            options = {"max_tokens": 100, "extra_body": {"ignore_eos": True}}
            return text_of(ask(client, question, **options))

        alone = [long_answer(question) for question in QUESTIONS]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(long_answer, QUESTIONS)) == alone


def test_a_client_that_leaves_frees_its_place(bucket_with_model, serve):
    flags = ("--model", "org/demo", "--base", "--max-num-seqs", 1)
    with serve("--bucket", bucket_with_model, *flags) as server:
        client = server.client()
        endless = {"max_tokens": 1900, "extra_body": {"ignore_eos": True}}
        stream = ask(client, QUESTIONS[0], stream=True, **endless)
        next(iter(stream))
        stream.close()
        assert text_of(ask(client, QUESTIONS[0], max_tokens=2, timeout=60))


def model_with_a_token_too_many(directory):
    """The example model with a token in its tokenizer that has no row in its embedding."""
    shutil.copytree(EXAMPLE_MODEL, directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    vocab = json.loads((directory / "config.json").read_text())["vocab_size"]
    token = {"id": vocab, "content": "<|extra|>", "special": True}
    tokenizer["added_tokens"].append(
        token | dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    )
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))


def test_a_token_that_the_model_lacks_fails_its_own_request_alone(lorry, serve, tmp_path):
    model_with_a_token_too_many(tmp_path / "m")
    lorry("import-model", tmp_path / "m", "--bucket", tmp_path / "bucket", "--model", "m")
    with serve("--bucket", tmp_path / "bucket", "--model", "m", "--base") as server:
        client = server.client()
        options = {"model": "m", "max_tokens": 8}
        with pytest.raises(openai.BadRequestError, match=r"token id \d+ \(<\|extra\|>\)"):
            client.chat.completions.create(
                messages=[{"role": "user", "content": "hello <|extra|>"}], **options
            )
        with pytest.raises(openai.BadRequestError, match="token id"):
            client.completions.create(prompt="hello <|extra|>", **options)
        assert ask(client, "hello", model="m", max_tokens=4)


def test_a_model_of_nan_answers_with_an_error(lorry, serve, tmp_path):
    shutil.copytree(EXAMPLE_MODEL, tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, tmp_path / "m/model.safetensors", {"format": "pt"})
    lorry("import-model", tmp_path / "m", "--bucket", tmp_path / "bucket", "--model", "m")
    with serve("--bucket", tmp_path / "bucket", "--model", "m", "--base") as server:
        client = server.client()
        with pytest.raises(openai.InternalServerError, match="NaN"):
            ask(client, "hello", model="m")


PROMISES = {
    "structured_outputs": {"choice": ["yes", "no"]},
    "guided_json": {"type": "object"},
    "guided_regex": "a+",
    "guided_choice": ["yes", "no"],
    "bad_words": ["I"],
    "allowed_token_ids": [5],
    "min_tokens": 9,
    "chat_template": "{{ messages }}",
    "truncate_prompt_tokens": 4,
    "functions": [{"name": "f"}],
    "continue_final_message": True,
    "add_generation_prompt": False,
}


def test_tools_that_the_template_does_not_show_are_refused(client):
    messages = [{"role": "user", "content": "Who are you?"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="gpt", messages=messages, max_tokens=1, tools=tools)
    assert error.value.body["param"] == "tools"
    client.chat.completions.create(
        model="gpt", messages=messages, max_tokens=1, tools=tools, tool_choice="none"
    )


@pytest.mark.parametrize("field", PROMISES)
def test_a_field_that_promises_something_is_refused_by_name(client, field):
    with pytest.raises(openai.BadRequestError, match=field):
        ask(client, "hello", max_tokens=2, extra_body={field: PROMISES[field]})


def test_fields_that_ask_for_nothing_are_ignored(client):
    nothing = {"guided_json": None, "min_tokens": 0, "bad_words": [], "continue_final_message": False}
    others = {"user": "me", "metadata": {"a": "b"}, "store": True, "keep_alive": 5}
    assert ask(client, "hello", max_tokens=2, extra_body=nothing | others).choices


THREE_ROLES = """{%- for m in messages %}{%- if m.role in ['system', 'user', 'assistant'] %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def test_a_developer_speaks_as_the_system_where_the_template_knows_no_developer(lorry, serve, tmp_path):
    (tmp_path / "roles.jinja").write_text(THREE_ROLES)
    where = ("--bucket", tmp_path / "bucket", "--model", "m")
    lorry("import-model", EXAMPLE_MODEL, *where, "--chat-template", tmp_path / "roles.jinja")
    words, question = "Answer in French.", ("user", "hello")
    with serve(*where, "--base") as server:

        def prompt_tokens(*messages):
            body = {"messages": [{"role": role, "content": text} for role, text in messages], "max_tokens": 1}
            return server.post("/v1/chat/completions", body)["usage"]["prompt_tokens"]

        as_system = prompt_tokens(("system", words), question)
        assert prompt_tokens(("developer", words), question) == as_system > prompt_tokens(question)
        client = server.client()
        with pytest.raises(openai.BadRequestError, match="'narrator', which this model's chat template"):
            messages = [{"role": "narrator", "content": words}, {"role": "user", "content": "hello"}]
            client.chat.completions.create(model="m", messages=messages)


def test_an_api_key_is_asked_for(bucket_with_model, serve):
    flags = ("--model", "org/demo", "--base", "--api-key", "secret")
    with serve("--bucket", bucket_with_model, *flags) as server:
        assert server.get("/health") == {"status": "ok"}
        url = server.url + "/v1"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
        assert post_error(server, "/v1/models", None, method="GET").code == 401
        assert openai.OpenAI(base_url=url, api_key="secret").models.list().data[0].id == "org/demo"


def test_a_port_in_use_is_one_clear_line(bucket_with_model, lorry):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        flags = ("--bucket", bucket_with_model, "--model", "org/demo", "--base", "--port", port)
        done = lorry("serve", *flags, code=1)
    assert f"127.0.0.1:{port} is already in use" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_signal_lets_a_running_answer_end(bucket_with_model, lorry):
    port = find_free_port()
    flags = ("--bucket", bucket_with_model, "--model", "org/demo", "--base", "--port", port)
    process = lorry.start("serve", *flags)
    try:
        assert any("ready" in line for line in process.stderr)
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        )
        stream = iter(ask(client, QUESTIONS[0], stream=True))
        next(stream)
        process.terminate()
        rest = list(stream)
        assert rest[-1].choices[0].finish_reason == "stop"
        process.communicate(timeout=30)
    finally:
        process.kill()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_page_at_the_root(server):
    with urllib.request.urlopen(server.url + "/") as response:
        assert "text/html" in response.headers["Content-Type"]
        assert b"/v1/chat/completions" in response.read()


# ---- while the model is loaded -------------------------------------------------------------------


class Gate:
    """An S3 server that keeps the weights back until the gate is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, method, path):
        if method == "GET" and "model.safetensors" in path:
            self.reached.set()
            self.open.wait(120)
        return False


@contextlib.contextmanager
def loading(lorry, s3, tmp_path, *flags):  # noqa: F811
    """A server whose model is still on its way, its gate, and the file of its stderr."""
    uri = s3.make_bucket("serving")
    lorry("import-model", EXAMPLE_MODEL, "--bucket", uri, "--model", "demo", env=s3.env())
    gate, port = Gate(), find_free_port()
    with (
        fault_proxy(s3.address, {"500": 0}, matches=gate) as proxy,
        open(tmp_path / "stderr", "w") as log,
    ):
        env = {**s3.env(proxy.url), "LORRY_HTTP_STALL_SECONDS": "300"}
        flags = ("--bucket", uri, "--model", "demo", "--base", "--port", port, *flags)
        process = lorry.start("serve", *flags, env=env, stderr=log)
        try:
            assert gate.reached.wait(60), (tmp_path / "stderr").read_text()
            yield Server(process, port), gate, tmp_path / "stderr"
        finally:
            gate.open.set()
            process.kill()
            process.wait()


def status(server, path, data=None, **headers):
    """(status, headers, JSON) of one request."""
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def test_every_route_answers_503_until_the_model_is_loaded(lorry, s3, tmp_path):  # noqa: F811
    key = {"Authorization": "Bearer secret"}
    with loading(lorry, s3, tmp_path, "--api-key", "secret") as (server, gate, log):
        body = b'{"messages": [{"role": "user", "content": "hi"}]}'
        for path, data in (
            ("/v1/models", None),
            ("/v1/models/demo", None),
            ("/v1/chat/completions", body),
            ("/v1/completions", b'{"prompt": "hi"}'),
        ):
            code, headers, answer = status(server, path, data, **key)
            assert code == 503 and headers["Retry-After"] == "1"
            assert answer["error"]["type"] == "server_error" and "loading" in answer["error"]["message"]
        code, headers, _ = status(server, "/health")  # which needs no key, as in vLLM
        assert code == 503 and headers["Retry-After"] == "1"
        assert status(server, "/v1/models")[0] == 401
        assert "ready" not in log.read_text()
        gate.open.set()
        while status(server, "/v1/models", **key)[0] == 503:
            assert server.process.poll() is None, log.read_text()
            time.sleep(0.02)
        assert status(server, "/v1/models", **key)[0] == 200
        assert status(server, "/health")[0] == 200
        assert status(server, "/v1/chat/completions", body, **key)[0] == 200
        assert "ready after" in log.read_text()


def test_a_signal_while_the_model_is_loaded_ends_the_server(lorry, s3, tmp_path):  # noqa: F811
    with loading(lorry, s3, tmp_path) as (server, gate, log):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 143
        assert not gate.open.is_set()
        assert len(log.read_text().splitlines()) == 1


def test_a_model_that_cannot_be_loaded_ends_the_server(bucket_with_model, lorry, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(bucket_with_model, bucket)
    weights = bucket / "models" / "org" / "demo" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    flags = ("--bucket", bucket, "--model", "org/demo", "--base", "--port", find_free_port())
    done = lorry("serve", *flags, code=1)
    assert "model.safetensors" in done.stderr and "ready" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_one_connection_too_many_is_turned_away(bucket_with_model, serve):
    flags = ("--model", "org/demo", "--base", "--max-connections", 1)
    with serve("--bucket", bucket_with_model, *flags) as server:
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while True:  # the one that asked whether the server is ready may still be closing
            kept.request("GET", "/v1/models")
            response = kept.getresponse()
            response.read()
            if response.status == 200:
                break
            kept.close()
        code, headers, answer = status(server, "/v1/models")
        assert code == 503 and headers["Retry-After"] == "1"
        assert "1 connections" in answer["error"]["message"]
        kept.request("GET", "/v1/models")
        assert kept.getresponse().status == 200
        kept.close()
