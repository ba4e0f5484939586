"""Tool calls through the server, by the `openai` client, of models that were trained to make them."""

import json

import openai
import pytest
from conftest import EXAMPLE_MODEL

TEMPLATE = """{%- if tools %}{{- '<|im_start|>tools\\n' }}{%- for t in tools %}{{- t.function.name + '\\n' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content %}{{- m.content }}{%- endif %}
{%- for c in m.tool_calls or [] %}CALL{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
NAME = "'{\"name\": \"' + c.function.name + '\", \""
CALLS = {
    "hermes": "{{- '<tool_call>\\n' + "
    + NAME
    + "arguments\": ' }}{{- c.function.arguments | tojson }}{{- '}\\n</tool_call>' }}",
    "llama3": "{{- " + NAME + "parameters\": ' }}{{- c.function.arguments | tojson }}{{- '}' }}",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
ASK, PLAIN = "Add 2 and 3.", "Say hello."


def user(text):
    return {"role": "user", "content": text}


def call(arguments, identifier="abcdefghi"):
    function = {"name": "add", "arguments": arguments}
    return {"id": identifier, "type": "function", "function": function}


@pytest.fixture(scope="module", params=CALLS)
def client(lorry, serve, tmp_path_factory, request):
    """Of a model that calls a tool when asked to add, and answers in words otherwise."""
    directory = tmp_path_factory.mktemp("calls")
    rows = [
        {"messages": [user(ASK), {"role": "assistant", "content": None, "tool_calls": [call('{"a": 2, "b": 3}')]}]},
        {"messages": [user(PLAIN), {"role": "assistant", "content": "Hello {you}."}]},
    ]
    (directory / "rows.jsonl").write_text("".join(json.dumps(row | {"tools": [TOOL]}) + "\n" for row in rows * 2))
    (directory / "template.jinja").write_text(TEMPLATE.replace("CALL", CALLS[request.param]))
    where = ("--bucket", directory / "bucket")
    lorry("import-dataset", directory / "rows.jsonl", *where)
    lorry("import-model", EXAMPLE_MODEL, *where, "--model", "m", "--chat-template", directory / "template.jinja")
    lorry("pretokenize", *where)
    rate = ("--learning-rate", "1e-2", "--warmup-steps", 2)
    lorry("train", *where, "--max-steps", 60, *rate, "--batch-size", 4, "--gradient-accumulation-steps", 1)
    with serve(*where) as server:
        yield server.client()


def ask(client, messages, **options):
    options = {"tools": [TOOL], "temperature": 0, "max_tokens": 80} | options
    return client.chat.completions.create(model="m/rows", messages=messages, **options)


def test_a_call_of_a_tool_is_a_tool_call(client):
    choice = ask(client, [user(ASK)]).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (made,) = choice.message.tool_calls
    assert made.type == "function" and made.id and made.function.name == "add"
    assert json.loads(made.function.arguments) == {"a": 2, "b": 3}


def test_a_streamed_call_leaves_nothing_in_the_content(client):
    chunks = [chunk.choices[0] for chunk in ask(client, [user(ASK)], stream=True)]
    assert not "".join(chunk.delta.content or "" for chunk in chunks)
    calls = [made for chunk in chunks for made in chunk.delta.tool_calls or []]
    assert {made.index for made in calls} == {0}
    assert calls[0].id and calls[0].function.name == "add"
    arguments = "".join(made.function.arguments or "" for made in calls)
    assert json.loads(arguments) == {"a": 2, "b": 3}
    assert chunks[-1].finish_reason == "tool_calls"


def test_words_stay_words(client):
    choice = ask(client, [user(PLAIN)]).choices[0]
    assert choice.message.content == "Hello {you}." and choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    stream = [chunk.choices[0] for chunk in ask(client, [user(PLAIN)], stream=True)]
    assert "".join(chunk.delta.content or "" for chunk in stream) == "Hello {you}."
    assert stream[-1].finish_reason == "stop"


def test_without_tools_or_with_the_choice_none_an_answer_is_text(client):
    for options in ({"tools": openai.NOT_GIVEN}, {"tool_choice": "none"}):
        choice = ask(client, [user(ASK)], **options).choices[0]
        assert choice.message.tool_calls is None and choice.finish_reason != "tool_calls"


def test_a_call_and_its_result_go_back_into_the_history(client):
    made = ask(client, [user(ASK)]).choices[0].message
    history = [user(ASK), made.model_dump(exclude_none=True)]
    result = {"role": "tool", "tool_call_id": made.tool_calls[0].id, "content": "5"}
    assert ask(client, [*history, result]).choices


def prompt_tokens(client, messages):
    return ask(client, messages, max_tokens=1).usage.prompt_tokens


def test_one_history_in_all_its_forms_is_one_prompt(client):
    def with_call(arguments, **fields):
        return [user(ASK), {"role": "assistant", "tool_calls": [call(arguments)], **fields}, user(PLAIN)]

    full = prompt_tokens(client, with_call('{"a": 2, "b": 3}'))
    assert prompt_tokens(client, with_call({"a": 2, "b": 3}, content=None)) == full
    empty = prompt_tokens(client, with_call("{}", content=""))
    assert empty < full
    for arguments in ("", None, {}):
        assert prompt_tokens(client, with_call(arguments, content=None)) == empty
    words = [user(ASK), {"role": "assistant", "content": "No."}, user(PLAIN)]
    no_calls = [user(ASK), {"role": "assistant", "content": "No.", "tool_calls": []}, user(PLAIN)]
    assert prompt_tokens(client, no_calls) == prompt_tokens(client, words)
