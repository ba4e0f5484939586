"""Fields of requests and paths of the server, beside those of OpenAI's client and of vLLM."""

import json
import re
import time
import urllib.error
import urllib.request

import pytest
from conftest import EXAMPLE_MODEL, ROOT, example_server
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

# The fields of vLLM's requests beyond OpenAI's (entrypoints/openai, protocol).
VLLM_BOTH = """use_beam_search top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side
    allowed_token_ids bad_words prompt_logprobs add_special_tokens structured_outputs priority request_id
    logits_processors return_tokens_as_token_ids return_token_ids cache_salt kv_transfer_params vllm_xargs
    repetition_detection guided_json guided_regex guided_choice guided_grammar structural_tag
    guided_decoding_backend guided_whitespace_pattern""".split()
VLLM_CHAT = """echo add_generation_prompt continue_final_message documents chat_template chat_template_kwargs
    include_reasoning thinking_token_budget mm_processor_kwargs media_io_kwargs""".split()
VLLM_COMPLETIONS = ["prompt_embeds"]

MESSAGES = [{"role": "user", "content": "Who are you?"}]
# Values that ask for something, of fields that are refused.
REFUSED = {
    "structured_outputs": {"regex": "a+"},
    "guided_json": {"type": "object"},
    "structural_tag": "{}",
    "regex": "a+",
    "bad_words": ["x"],
    "allowed_token_ids": [1],
    "min_tokens": 3,
    "use_beam_search": True,
    "logits_processors": ["p"],
    "vllm_xargs": {"a": 1},
    "typical_p": 0.9,
    "repetition_detection": {"max_pattern_size": 3},
    "thinking_token_budget": 5,
    "prompt_logprobs": 0,
    "truncate_prompt_tokens": -1,
    "mm_processor_kwargs": {"a": 1},
    "moderation": {"model": "m"},
    "priority": 1,
    "kv_transfer_params": {"do_remote_decode": True},
}
REFUSED_BY_CHAT = {
    "echo": True,
    "add_special_tokens": True,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "chat_template": "{{ 1 }}",
    "include_reasoning": False,
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "audio": {"voice": "alloy", "format": "wav"},
    "modalities": ["text", "audio"],
    "web_search_options": {"search_context_size": "low"},
    # The example's template has no use of these.
    "documents": [{"title": "t", "text": "x"}],
    "reasoning_effort": "high",
    "verbosity": "low",
}
HARMLESS = {
    "user": "me",
    "safety_identifier": "x",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "request_id": "r",
    "length_penalty": 0.5,
    "spaces_between_special_tokens": False,
    "priority": 0,
    "min_tokens": 0,
    "structured_outputs": None,
    "bad_words": [],
    "typical_p": 1.0,
    "temprature": 0.1,
}


@pytest.fixture(scope="module")
def server(lorry, serve, tmp_path_factory):
    with example_server(lorry, serve, tmp_path_factory.mktemp("fields"), "org/m") as running:
        yield running


def ask(server, **fields):
    return server.post("/v1/chat/completions", {"messages": MESSAGES, "temperature": 0, "max_tokens": 12} | fields)


def complete(server, **fields):
    return server.post("/v1/completions", {"prompt": "The sky is", "temperature": 0, "max_tokens": 12} | fields)


def refusal(server, path, body):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.post(path, body)
    error = json.loads(caught.value.read())["error"]
    return caught.value.code, error["param"], error["message"]


def events(server, path, body):
    request = urllib.request.Request(
        server.url + path, json.dumps(body | {"stream": True}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        lines = response.read().decode().split("\n\n")
    return [json.loads(line[len("data: ") :]) for line in lines if line.startswith("data: {")]


def test_the_page_says_what_becomes_of_every_field_of_both_apis():
    page = (ROOT / "docs/serving.md").read_text()
    told = set(re.findall(r"[a-z][a-z_]*", page[page.index("## Fields of requests") : page.index("## Metrics")]))
    ours = set(re.findall(r'^    \{"(\w+)"', (ROOT / "src/serve/request_fields.cc").read_text(), re.M))
    openais = set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    openais |= set(chat_create_params.CompletionCreateParamsBase.__annotations__)
    wanted = openais | set(VLLM_BOTH) | set(VLLM_CHAT) | set(VLLM_COMPLETIONS)
    assert wanted - told == set()
    assert wanted - ours == set()
    assert ours - told == set()


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_answer_is_refused_by_name(server, name):
    for path, head in (("/v1/chat/completions", {"messages": MESSAGES}), ("/v1/completions", {"prompt": "x"})):
        status, param, message = refusal(server, path, head | {"max_tokens": 1, name: REFUSED[name]})
        assert (status, param) == (400, name) and f"'{name}'" in message


@pytest.mark.parametrize("name", REFUSED_BY_CHAT)
def test_what_a_chat_cannot_do_is_refused_by_name(server, name):
    body = {"messages": MESSAGES, "max_tokens": 1, name: REFUSED_BY_CHAT[name]}
    status, param, message = refusal(server, "/v1/chat/completions", body)
    assert (status, param) == (400, name) and f"'{name}'" in message


def test_what_cannot_change_the_answer_does_not(server):
    for call in (ask, complete):
        plain, with_fields = call(server), call(server, **HARMLESS)
        assert with_fields["choices"] == plain["choices"]
    modest = {"modalities": ["text"], "verbosity": "medium", "add_generation_prompt": True, "function_call": "auto"}
    assert ask(server, **modest)["choices"] == ask(server)["choices"]


def test_token_ids_are_those_of_prompt_and_answer(server, tokenizer):
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    answer = ask(server, return_token_ids=True, ignore_eos=True)
    choice = answer["choices"][0]
    assert answer["prompt_token_ids"] == prompt
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"] == 12
    assert tokenizer.decode(choice["token_ids"], skip_special_tokens=True) == choice["message"]["content"]
    assert "token_ids" not in ask(server)["choices"][0]

    answer = complete(server, prompt=["The sky is", "Tom"], return_token_ids=True)
    for text, choice in zip(["The sky is", "Tom"], answer["choices"]):
        assert choice["prompt_token_ids"] == tokenizer(text)["input_ids"]
        assert len(choice["token_ids"]) <= 12


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_has_the_same_token_ids(server, path):
    body = {"messages": MESSAGES} if "chat" in path else {"prompt": "The sky is"}
    body |= {"temperature": 0, "max_tokens": 12, "return_token_ids": True}
    whole = server.post(path, body)
    chunks = events(server, path, body)
    ids = [i for chunk in chunks for i in chunk["choices"][0].get("token_ids", [])]
    assert ids == whole["choices"][0]["token_ids"]
    holder = (lambda answer: answer) if "chat" in path else (lambda answer: answer["choices"][0])
    assert holder(chunks[0])["prompt_token_ids"] == holder(whole)["prompt_token_ids"]
    assert all("prompt_token_ids" not in holder(chunk) for chunk in chunks[1:])


def test_tokens_of_logprobs_may_be_ids(server):
    plain = complete(server, logprobs=2, return_token_ids=True)["choices"][0]
    lists = complete(server, logprobs=2, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert lists["tokens"] == [f"token_id:{i}" for i in plain["token_ids"]]
    assert all(re.fullmatch(r"token_id:\d+", key) for top in lists["top_logprobs"] for key in top)
    assert lists["token_logprobs"] == plain["logprobs"]["token_logprobs"]
    chat = ask(server, logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True, return_token_ids=True)
    content = chat["choices"][0]["logprobs"]["content"]
    shown = chat["choices"][0]["token_ids"][: len(content)]
    assert [entry["token"] for entry in content] == [f"token_id:{i}" for i in shown]
    assert content[0]["top_logprobs"][0]["token"] == content[0]["token"]


def test_a_stop_string_is_part_of_the_text_where_that_is_asked_for(server):
    text = complete(server, max_tokens=24)["choices"][0]["text"]
    stop = text[8:11]
    at = text.index(stop)
    without = complete(server, max_tokens=24, stop=[stop])["choices"][0]
    with_it = complete(server, max_tokens=24, stop=[stop], include_stop_str_in_output=True)["choices"][0]
    assert (without["text"], with_it["text"]) == (text[:at], text[:at] + stop)
    assert without["finish_reason"] == with_it["finish_reason"] == "stop"
    chunks = events(server, "/v1/completions", {"prompt": "The sky is", "temperature": 0, "max_tokens": 24,
                                                "stop": stop, "include_stop_str_in_output": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text[:at] + stop


def test_a_stop_token_is_part_of_the_text_where_that_is_asked_for(server, tokenizer):
    ids = complete(server, return_token_ids=True)["choices"][0]["token_ids"]
    last = next(i for i in ids[1:] if i not in tokenizer.all_special_ids)
    end = ids.index(last) + 1
    given = {"stop_token_ids": [last], "return_token_ids": True}
    without, with_it = (complete(server, include_stop_str_in_output=yes, **given)["choices"][0] for yes in (False, True))
    assert without["token_ids"] == with_it["token_ids"] == ids[:end]
    whole, before = tokenizer.decode(ids[:end]), tokenizer.decode(ids[: end - 1])
    assert with_it["text"].strip() == whole.strip() and without["text"].strip() == before.strip()


def test_special_tokens_of_a_prompt_need_not_be_added(server, tokenizer):
    special = tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids[0])
    for add in (True, False):
        answer = complete(server, prompt=special + "The", add_special_tokens=add, return_token_ids=True)
        wanted = tokenizer(special + "The", add_special_tokens=add)["input_ids"]
        assert answer["choices"][0]["prompt_token_ids"] == wanted


def test_usage_may_come_with_every_chunk(server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 6, "ignore_eos": True, "stream_options": options}
    chunks = events(server, "/v1/chat/completions", body)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 6
    assert chunks[-1]["choices"] == []


EFFORT = """{%- if documents %}{{- documents[0].text + '\\n' }}{%- endif %}
{%- if reasoning_effort == 'high' %}{{- 'Think hard.\\n' }}{%- endif %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def test_fields_that_a_template_knows_are_its_variables(lorry, serve, tmp_path, tokenizer):
    (tmp_path / "effort.jinja").write_text(EFFORT)
    where = ("--bucket", tmp_path / "bucket", "--model", "m")
    lorry("import-model", EXAMPLE_MODEL, *where, "--chat-template", tmp_path / "effort.jinja")
    with serve(*where, "--base") as server:

        def prompt(**fields):
            ids = ask(server, max_tokens=1, return_token_ids=True, **fields)["prompt_token_ids"]
            return tokenizer.decode(ids, skip_special_tokens=False)

        assert "Think hard." in prompt(reasoning_effort="high")
        assert "Think hard." not in prompt(reasoning_effort="medium")
        both = prompt(reasoning_effort="high", chat_template_kwargs={"reasoning_effort": "low"})
        assert "Think hard." not in both
        assert "In 1871." in prompt(documents=[{"title": "t", "text": "In 1871."}])
        assert refusal(server, "/v1/chat/completions", {"messages": MESSAGES, "verbosity": "low"})[1] == "verbosity"


# ---- paths ----------------------------------------------------------------------------------------


def test_texts_become_ids_and_back_in_the_form_of_vllm(server, tokenizer):
    text = "Grüße 🙂 Tom"
    got = server.post("/tokenize", {"model": "org/m", "prompt": text})
    assert set(got) == {"count", "max_model_len", "tokens", "token_strs"}
    assert got["tokens"] == tokenizer(text)["input_ids"] and got["count"] == len(got["tokens"])
    assert got["token_strs"] is None and got["max_model_len"] == 2048
    plain = server.post("/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True})
    assert plain["tokens"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(plain["token_strs"]) == plain["count"] and plain["token_strs"][-1].strip() == "Tom"
    assert server.post("/detokenize", {"model": "org/m", "tokens": got["tokens"]}) == {
        "prompt": tokenizer.decode(got["tokens"])
    }
    chat = server.post("/tokenize", {"messages": MESSAGES})
    assert chat["tokens"] == tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"messages": "x"}, "messages"),
        ("/tokenize", {"messages": MESSAGES, "add_generation_prompt": False}, "add_generation_prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": ["x"]}, "tokens"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
    ],
)
def test_what_is_no_text_or_no_ids_is_refused_by_name(server, path, body, param):
    assert refusal(server, path, body)[:2] == (400, param)


def test_probes_are_answered(server, lorry):
    assert server.get("/ping") == server.get("/health") == {"status": "ok"}
    assert server.post("/ping", {}) == {"status": "ok"}
    version = server.get("/version")["version"]
    assert version in lorry("--version").stdout
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/nothing")
    message = json.loads(caught.value.read())["error"]["message"]
    assert "/tokenize" in message and "/metrics" in message


def test_a_key_guards_what_uses_the_model_alone(lorry, serve, tmp_path):
    where = ("--bucket", tmp_path / "bucket", "--model", "m")
    lorry("import-model", EXAMPLE_MODEL, *where)
    with serve(*where, "--base", "--api-key", "secret") as server:
        for path in ("/ping", "/version"):
            assert server.get(path)
        assert metrics_of(server)
        for path in ("/tokenize", "/detokenize", "/v1/completions"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                server.post(path, {"prompt": "x", "tokens": []})
            assert caught.value.code == 401


LINE = re.compile(r'lorry:(\w+)\{(.*)\} ([0-9.e+-]+|\+Inf|NaN)')


def metrics_of(server):
    """{(name, labels): value}; every line is a comment or a sample in Prometheus' text form."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = response.read().decode().splitlines()
    samples = {}
    typed = set()
    for line in lines:
        if line.startswith("# TYPE lorry:"):
            typed.add(line.split()[2].removeprefix("lorry:"))
        if line.startswith("#"):
            continue
        name, labels, value = LINE.fullmatch(line).groups()
        assert any(name in (t, t + "_bucket", t + "_count", t + "_sum") for t in typed), line
        samples[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return samples


def test_metrics_count_what_was_asked_and_answered(server):
    def value(samples, name, **labels):
        return samples[name, frozenset({"model_name": "org/m", **labels}.items())]

    before = metrics_of(server)
    usage = ask(server, n=2, ignore_eos=True, max_tokens=5)["usage"]
    now = metrics_of(server)

    def grown(name, **labels):
        return value(now, name, **labels) - value(before, name, **labels)

    assert grown("generation_tokens_total") == usage["completion_tokens"] == 10
    assert grown("prompt_tokens_total") == 2 * usage["prompt_tokens"]
    assert grown("request_success_total", finished_reason="length") == 2
    assert grown("e2e_request_latency_seconds_count") == grown("time_to_first_token_seconds_count") == 2
    assert grown("e2e_request_latency_seconds_bucket", le="+Inf") == 2
    assert grown("e2e_request_latency_seconds_sum") > 0


def test_metrics_show_what_runs_and_what_left(server):
    def gauge(name):
        return metrics_of(server)[name, frozenset({("model_name", "org/m")})]

    def aborted():
        labels = frozenset({("model_name", "org/m"), ("finished_reason", "abort")})
        return metrics_of(server)["request_success_total", labels]

    def until(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    until(lambda: gauge("num_requests_running") == 0)
    assert gauge("kv_cache_usage_perc") == 0
    before = aborted()
    body = {"messages": MESSAGES, "max_tokens": 1900, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        server.url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        response.readline()
        until(lambda: gauge("num_requests_running") == 1)
        assert gauge("kv_cache_usage_perc") > 0
    until(lambda: gauge("num_requests_running") == 0)
    assert gauge("kv_cache_usage_perc") == 0 and aborted() == before + 1
