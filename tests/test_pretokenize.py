"""lorry pretokenize, tokenize and render from outside: rows that are too long, why rows teach
nothing, what a terminal sees."""

import json
import os
import pty
import shutil

import pytest
from conftest import EXAMPLE_MODEL
from datasets import Dataset, load_from_disk

FAILED, WRONG_USAGE = 1, 2
LONG = "word " * 60


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def turns(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


ROWS = [
    turns("Hi", "Hello."),
    turns("Count.", LONG + "end"),
    turns(LONG, "Yes."),
    turns("Hi", "A.", "And?", "B."),
]


@pytest.fixture(scope="module")
def filled(lorry, tmp_path_factory):
    """A bucket with standardized rows and the example model."""
    where = tmp_path_factory.mktemp("pretokenize")
    source = where / "rows.jsonl"
    source.write_text("".join(json.dumps({"messages": row}) + "\n" for row in ROWS))
    lorry("import-dataset", source, "--bucket", where / "bucket", "--dataset", "talk")
    lorry("import-model", EXAMPLE_MODEL, "--bucket", where / "bucket", "--model", "demo")
    return where / "bucket"


@pytest.fixture
def pretokenize(lorry, filled):
    def run(*flags, **kwargs):
        report = lorry.json("pretokenize", "--bucket", filled, *flags, "--json", **kwargs)
        shard = load_from_disk(str(filled / "model-ready/demo/talk/0"))
        info = json.loads((filled / "model-ready/demo/talk/info.json").read_text())
        return report, list(shard), info

    return run


def test_rows_stay_whole_without_a_limit(pretokenize):
    report, rows, info = pretokenize()
    assert max(len(row["input_ids"]) for row in rows) == report["longest"] > 64
    assert "max_length" not in info["options"] and "excess" not in info


def test_what_is_too_long_is_cut_at_the_end(pretokenize):
    _, whole, _ = pretokenize()
    report, rows, info = pretokenize("--max-length", 64)
    assert [row["input_ids"] for row in rows] == [row["input_ids"][:64] for row in whole]
    assert info["ledger"]["noted"]["cut at --max-length"] == 2 == report["excess"]["rows"]
    reason = "nothing to train on: every token to train on is beyond --max-length"
    assert info["ledger"]["noted"][reason] == 1 == report["rows_without_target"]
    assert pretokenize("--max-length", 64)[0]["up_to_date"]
    assert not pretokenize("--max-length", 63)[0]["up_to_date"]


def test_or_left_out(pretokenize):
    _, whole, _ = pretokenize()
    report, rows, info = pretokenize("--max-length", 64, "--excess-length", "drop")
    assert [r["input_ids"] for r in rows] == [r["input_ids"] for r in whole if len(r["input_ids"]) <= 64]
    assert info["ledger"]["dropped"] == {"longer than --max-length": 2} and report["dropped"] == 2


def test_or_split_into_pieces_in_order(pretokenize):
    _, whole, _ = pretokenize()
    report, rows, _ = pretokenize("--max-length", 32, "--excess-length", "split", "--with-text")
    assert report["excess"]["pieces"] + report["excess"]["pieces_left_out"] == sum(
        -(-len(row["input_ids"]) // 32) for row in whole if len(row["input_ids"]) > 32
    )
    kept = [row["input_ids"][i : i + 32] for row in whole for i in range(0, len(row["input_ids"]), 32)
            if any(row["assistant_masks"][i : i + 32][1:])]  # fmt: skip
    assert [row["input_ids"] for row in rows] == kept
    assert all(row["text"] for row in rows)


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_texts_in_parts_are_learned_in_part(lorry, tmp_path, container):
    """Axolotl's input_output: each part is tokenized by itself, without special tokens of its own."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE_MODEL)
    end = tokenizer.eos_token
    rows = [[(True, "Q: how\n"), (False, "many? "), (True, f"Three.{end}")],
            [(False, "A Straße, "), (False, "and"), (True, " 你好"), (False, " \n\n")],
            [(False, "only to read")]]  # fmt: skip
    rows = [{"segments": [{"label": label, "text": text} for label, text in row]} for row in rows]
    source = tmp_path / f"parts.{container}"
    if container == "jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        Dataset.from_list(rows).to_parquet(str(source))
    bucket = tmp_path / "bucket"
    said = lorry("import-dataset", source, "--bucket", bucket, "--dataset", "parts").stderr
    assert "standardized 2 of 3 rows as text (text: segments)" in said
    ledger = json.loads((bucket / "standardized/parts/info.json").read_text())["ledger"]
    assert ledger["dropped"] == {"no part is to be learned": 1}
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    lorry("pretokenize", "--bucket", bucket)
    shard = load_from_disk(str(bucket / "model-ready/demo/parts/0"))
    for row, got in zip(rows, shard, strict=False):
        parts = [(part["label"], tokenizer.encode(part["text"], add_special_tokens=False))
                 for part in row["segments"]]  # fmt: skip
        assert got["input_ids"] == [id for _, ids in parts for id in ids]
        assert got["assistant_masks"] == [int(label) for label, ids in parts for _ in ids]
    assert len(shard) == 2


def test_lengths_are_counted(pretokenize, lorry, filled):
    report, rows, info = pretokenize()
    lengths = sorted(len(row["input_ids"]) for row in rows)
    assert sum(info["lengths"].values()) == len(rows)
    assert lengths[-1] == info["length_quantiles"]["p99"] == info["longest"]
    said = lorry("pretokenize", "--bucket", filled).stderr
    assert "tokens a row:" in said and "of the tokens are trained on" in said and "###" in said
    assert "tokens a row:" not in lorry("pretokenize", "--bucket", filled, "--json").stderr


@pytest.mark.parametrize("flags", [("--excess-length", "drop"), ("--max-length", 1),
                                   ("--max-length", 64, "--excess-length", "ignore")])
def test_wrong_usage_is_named(lorry, filled, flags):
    for verb in ("pretokenize", "tokenize", "render"):
        done = lorry(verb, "--bucket", filled, *flags, code=WRONG_USAGE)
        assert "length" in last_line(done)


def test_the_reason_of_an_empty_mask_is_said(lorry, filled, tmp_path):
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps(turns("q")))
    said = lorry("tokenize", "--bucket", filled, "--messages", messages).stdout
    assert said.strip().endswith("0 trained on: no message of the assistant")


def trained(shown):
    """Runs of trained tokens, as text."""
    runs, run = [], ""
    for token, on in zip(shown["tokens"] + [""], shown["assistant_masks"] + [0]):
        if on:
            run += token
        elif run:
            runs.append(run)
            run = ""
    return runs


ALPACA = ("{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
          "{% if add_generation_prompt %}### assistant:\n{% endif %}")


def test_rows_that_train_on_no_end_token_are_counted_and_said(lorry, tmp_path):
    (tmp_path / "alpaca.jinja").write_text(ALPACA)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in ROWS))
    bucket = ("--bucket", tmp_path / "b")
    lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk")
    lorry("import-model", EXAMPLE_MODEL, *bucket, "--model", "m", "--chat-template", tmp_path / "alpaca.jinja")
    said = lorry("pretokenize", *bucket).stderr
    assert "4 rows train on no end token: the model will not learn to stop" in said
    assert "--chat-template" in said
    assert "4 rows train on no end token" in lorry("pretokenize", *bucket).stderr  # nothing to do
    info = json.loads((tmp_path / "b/model-ready/m/talk/info.json").read_text())
    assert info["rows_without_end"] == 4 == info["ledger"]["noted"]["no end token is trained on"]
    shown = lorry("tokenize", *bucket, "--row", 0).stdout
    assert "no end token among them: the model will not learn to stop" in shown
    runs = trained(lorry.json("tokenize", *bucket, "--row", 3, "--json"))
    assert [run.rstrip() for run in runs] == ["A.", "B."]  # a token may hold the line break, too


def test_the_end_token_of_the_example_is_trained_on(pretokenize, lorry, filled):
    report, _, info = pretokenize("--fresh")
    assert report["rows_without_end"] == 0 and info["ledger"]["noted"] == {}
    assert "no end token" not in lorry("tokenize", "--bucket", filled, "--row", 0).stdout


@pytest.mark.parametrize("train_on,want", [
    ("assistant", ["good<|im_end|>"]), ("last", ["good<|im_end|>"]), ("all", None)])
def test_answers_that_are_marked_are_in_the_text_and_not_in_the_mask(lorry, tmp_path, train_on, want):
    messages = turns("q", "BAD", "r", "", "s", "good")
    messages[1]["weight"] = 0
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    bucket = ("--bucket", tmp_path / "b")
    lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk")
    lorry("import-model", EXAMPLE_MODEL, *bucket, "--model", "m")
    lorry("pretokenize", *bucket, "--train-on", train_on)
    shown = lorry.json("tokenize", *bucket, "--row", 0, "--train-on", train_on, "--json")
    (row,) = load_from_disk(str(tmp_path / "b/model-ready/m/talk/0"))
    assert row["assistant_masks"] == shown["assistant_masks"] and row["input_ids"] == shown["input_ids"]
    assert "BAD<|im_end|>" in shown["text"] and "weight" not in shown["text"]
    if want is None:
        assert "BAD" not in "".join(trained(shown)) and "<|im_start|>user" in "".join(trained(shown))
    else:
        assert trained(shown) == want


SHOWS_CALLS = {
    "nowhere": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
               "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    # DeepSeek R1's way
    "where content is none": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m['content'] is none %}"
                             "{% for c in m.tool_calls %}{{ c.function|tojson }}{% endfor %}{% else %}{{ m.content }}"
                             "{% endif %}<|im_end|>\n{% endfor %}"
                             "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}


@pytest.mark.parametrize("where", SHOWS_CALLS)
@pytest.mark.parametrize("content", [None, "", "I look."])
def test_calls_are_trained_on_where_the_template_does_not_show_them(lorry, tmp_path, where, content):
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"city": "Bern"}}}
    messages = [{"role": "user", "content": "weather?"}, {"role": "assistant", "content": content, "tool_calls": [call]},
                {"role": "tool", "content": "sun"}, {"role": "assistant", "content": "Sunny"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    (tmp_path / "t.jinja").write_text(SHOWS_CALLS[where])
    bucket = ("--bucket", tmp_path / "b")
    lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk")
    lorry("import-model", EXAMPLE_MODEL, *bucket, "--model", "m", "--chat-template", tmp_path / "t.jinja")
    shown = lorry.json("tokenize", *bucket, "--row", 0, "--json")
    line = '{"name": "look_up", "arguments": {"city": "Bern"}}<|im_end|>'
    assert trained(shown) == [f"{content}\n{line}" if content else line, "Sunny<|im_end|>"]


TWO_ROLES = ("{% for m in messages %}{% if m.role in ('user', 'assistant') %}<|im_start|>{{ m.role }}\n{{ m.content }}"
             "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
THINKING = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "add them"}, {"role": "user", "content": "3+3?"},
    {"role": "assistant", "content": "6", "reasoning_content": "add these"},
]


@pytest.fixture
def with_template(lorry, tmp_path):
    """A bucket with one row and a model with the template."""

    def make(template, messages):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
        (tmp_path / "t.jinja").write_text(template)
        bucket = ("--bucket", tmp_path / "b")
        lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk")
        lorry("import-model", EXAMPLE_MODEL, *bucket, "--model", "m", "--chat-template", tmp_path / "t.jinja")
        return bucket

    return make


def test_what_the_template_does_not_show_is_counted_and_said(lorry, with_template, tmp_path):
    bucket = with_template(TWO_ROLES, THINKING)
    said = lorry("pretokenize", *bucket).stderr
    assert 'does not show reasoning: 1 row, as standardized/talk/0 row 0, message 4: "add these"' in said
    assert "does not show reasoning of an earlier answer: 1 row" in said and "--train-on last" in said
    assert "does not show a system message: 1 row" in said
    noted = json.loads((tmp_path / "b/model-ready/m/talk/info.json").read_text())["ledger"]["noted"]
    assert noted["not shown by the chat template: reasoning"] == 1
    assert "does not show reasoning: 1 row" in lorry("pretokenize", *bucket).stderr  # nothing to do
    last = lorry("pretokenize", *bucket, "--train-on", "last").stderr
    assert "not show reasoning: 1 row" in last and "earlier" not in last
    assert "not show" not in lorry("pretokenize", *bucket, "--template-losses", "allow").stderr
    assert 'not show reasoning: message 4: "add these"' in lorry("render", *bucket).stderr


NO_WORDS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if m.role != 'assistant' else '' }}<|im_end|>{% endfor %}"


def test_a_row_whose_answer_is_not_shown_is_refused_unless_allowed(lorry, with_template, tmp_path):
    bucket = with_template(NO_WORDS, turns("Where is it?", "In the garden."))
    said = lorry("pretokenize", *bucket, code=FAILED).stderr
    assert 'row 0: the chat template does not show an answer (message 1: "In the garden.")' in said
    assert "--chat-template FILE" in said and "--template-losses warn" in said
    said = lorry("pretokenize", *bucket, "--template-losses", "warn").stderr
    assert "warning: the chat template does not show an answer: 1 row" in said


REFUSES_SYSTEM = ("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
                  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def test_a_system_message_goes_before_the_question_where_the_flag_says_so(lorry, with_template, tmp_path):
    row = [{"role": "system", "content": "Be brief."}] + turns("2+2?", "4")
    bucket = with_template(REFUSES_SYSTEM, row)
    said = lorry("pretokenize", *bucket, code=FAILED).stderr
    assert "System role not supported; --system-as-user puts" in said
    lorry("pretokenize", *bucket, "--system-as-user")
    info = json.loads((tmp_path / "b/model-ready/m/talk/info.json").read_text())
    assert info["template_settings"] == {"system_as_user": True}
    shown = lorry.json("tokenize", *bucket, "--system-as-user", "--json")
    assert shown["text"].startswith("<|im_start|>user\nBe brief.\n\n2+2?<|im_end|>")
    assert trained(shown) == ["4<|im_end|>"]


def test_variables_of_the_template_are_given_and_recorded(lorry, with_template, tmp_path):
    template = "{% for m in messages %}{{ m.content }} {{ enable_thinking }}<|im_end|>{% endfor %}"
    bucket = with_template(template, turns("q", "a"))
    flags = ("--template-kwargs", '{"enable_thinking": false}')
    assert lorry("render", *bucket, *flags).stdout.strip() == "q False<|im_end|>a False<|im_end|>"
    assert not lorry.json("pretokenize", *bucket, "--json")["up_to_date"]
    assert not lorry.json("pretokenize", *bucket, *flags, "--json")["up_to_date"]
    assert lorry.json("pretokenize", *bucket, *flags, "--json")["up_to_date"]
    info = json.loads((tmp_path / "b/model-ready/m/talk/info.json").read_text())
    assert info["template_settings"] == {"variables": {"enable_thinking": False}}
    said = lorry("pretokenize", *bucket, "--template-kwargs", "thinking", code=WRONG_USAGE)
    assert "--template-kwargs: 'thinking' is not a JSON object" in said.stderr


def test_the_day_that_a_template_writes_is_that_of_the_first_import(lorry, with_template, tmp_path):
    bucket = with_template("{{ strftime_now('%d.%m.%Y') }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
                           turns("q", "a"))
    for stage in ("raw", "standardized"):  # imported long ago
        path = tmp_path / "b" / stage / "talk/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"imported_on": "2024-02-29"}))
    lorry("pretokenize", *bucket)
    info = json.loads((tmp_path / "b/model-ready/m/talk/info.json").read_text())
    assert info["template_settings"] == {"date": "2024-02-29"}
    assert lorry("render", *bucket).stdout.startswith("29.02.2024q")
    assert not lorry.json("pretokenize", *bucket, "--date", "2025-01-31", "--json")["up_to_date"]
    assert "is no day" in lorry("pretokenize", *bucket, "--date", "31.1.2025", code=WRONG_USAGE).stderr
    lorry("import-dataset", tmp_path / "rows.jsonl", *bucket, "--dataset", "talk", "--fresh")
    assert json.loads((tmp_path / "b/raw/talk/info.json").read_text())["imported_on"] == "2024-02-29"


def test_a_day_that_no_template_writes_is_no_input(lorry, with_template):
    bucket = with_template(TWO_ROLES, turns("q", "a"))
    lorry("pretokenize", *bucket)
    said = lorry("pretokenize", *bucket, "--date", "2025-01-31", "--json")
    assert json.loads(said.stdout)["up_to_date"]
    assert said.stderr.count("--date 2025-01-31: the chat template of m writes no day") == 1
    assert "writes no day" in lorry("render", *bucket, "--date", "2025-01-31").stderr
    assert "writes no day" not in lorry("render", *bucket).stderr


NINE = ("{% for m in messages %}{% for c in m.tool_calls or [] %}{% if not c.id is defined or c.id|length != 9 %}"
        "{{ raise_exception('nine') }}{% endif %}{{ c.function.name }} {{ c.id }}{% endfor %}{{ m.content or '' }}"
        "<|im_end|>{% endfor %}")


def test_call_ids_are_made_to_fit_and_said_once(lorry, with_template, tmp_path):
    call = {"id": "call_abc123XYZ", "type": "function", "function": {"name": "look", "arguments": {}}}
    row = turns("q") + [{"role": "assistant", "content": None, "tool_calls": [call]},
                        {"role": "tool", "content": "5", "tool_call_id": call["id"]}] + turns("", "five")[1:]
    bucket = with_template(NINE, row)
    said = lorry("pretokenize", *bucket).stderr
    assert said.count("1 row has new ids of tool calls") == 1
    ledger = (tmp_path / "b/model-ready/m/talk/ledger.jsonl").read_text()
    assert "call ids changed to ones that the chat template takes" in ledger


def test_named_templates_are_imported_and_chosen(lorry, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(EXAMPLE_MODEL, model)
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates/short.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (tmp_path / "m.json").write_text(json.dumps(turns("q", "a")))
    bucket = ("--bucket", tmp_path / "b")
    lorry("import-model", model, *bucket, "--model", "m")
    assert (tmp_path / "b/models/m/additional_chat_templates/short.jinja").exists()
    shown = lorry("render", *bucket, "--messages", tmp_path / "m.json", "--chat-template-name", "short")
    assert shown.stdout.strip() == "qa"
    said = lorry("render", *bucket, "--messages", tmp_path / "m.json", "--chat-template-name", "long", code=FAILED)
    assert "no chat template of the name long; it has default" in said.stderr
    shutil.rmtree(model / "additional_chat_templates")
    lorry("import-model", model, *bucket, "--model", "m")
    assert not (tmp_path / "b/models/m/additional_chat_templates/short.jinja").exists()


def test_tokenize_shows_what_pretokenize_makes(lorry, filled, pretokenize):
    flags = ("--max-length", 64, "--train-on", "last")
    _, rows, _ = pretokenize(*flags)
    for i, row in enumerate(rows):
        shown = lorry.json("tokenize", "--bucket", filled, "--row", i, *flags, "--json")
        assert shown["input_ids"] == row["input_ids"]
        assert shown["assistant_masks"] == row["assistant_masks"]
        for token, (begin, end) in zip(shown["tokens"], shown["offsets"], strict=True):
            assert shown["text"][begin:end] == token
    flags = ("--max-length", 32, "--excess-length", "split")
    _, rows, _ = pretokenize(*flags)
    pieces = lorry.json("tokenize", "--bucket", filled, "--row", 1, *flags, "--json")["rows"]
    assert [p["input_ids"] for p in pieces] == [r["input_ids"] for r in rows[1 : 1 + len(pieces)]]


def test_a_row_that_is_left_out_says_so(lorry, filled):
    flags = ("--row", 1, "--max-length", 64, "--excess-length", "drop")
    assert "longer than --max-length 64: left out" in lorry("tokenize", "--bucket", filled, *flags).stdout
    assert lorry.json("tokenize", "--bucket", filled, *flags, "--json") == {"rows": []}
    assert lorry("render", "--bucket", filled, *flags).stdout == ""


def test_half_characters_are_shown_as_bytes(lorry, filled):
    text = "é世\x1b[31m"
    shown = lorry.json("tokenize", "--bucket", filled, "--text", text, "--json")
    assert "<0xE4>" in shown["tokens"] and not any("\ufffd" in token for token in shown["tokens"])
    assert shown["text"] == text and len(shown["offsets"]) == len(shown["input_ids"])
    table = lorry("tokenize", "--bucket", filled, "--text", text).stdout
    assert "\x1b" not in table and "\\x1b" in table and "<0xE4>" in table


def in_terminal(lorry, *args):
    """What the program writes to a terminal."""
    master, slave = pty.openpty()
    process = lorry.start(*args, stdout=slave, env={"TERM": "xterm"})
    os.close(slave)
    out = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        out += part
    os.close(master)
    assert process.wait() == 0, process.stderr.read()
    return out.decode().replace("\r\n", "\n")


def test_render_shows_trained_spans_in_colour_in_a_terminal_alone(lorry, filled):
    where = ("--bucket", filled, "--row", 3)
    plain = lorry("render", *where).stdout
    painted = in_terminal(lorry, "render", *where)
    assert painted.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain
    assert "\x1b[32mA.<|im_end|>\x1b[0m" in painted and "\x1b[32mB.<|im_end|>\x1b[0m" in painted
    last = in_terminal(lorry, "render", *where, "--train-on", "last")
    assert "\x1b[32mA." not in last and "\x1b[32mB." in last


def test_hostile_text_does_not_drive_the_terminal(lorry, filled, tmp_path):
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps(turns("q", "\x1b]0;title\x07\u202e\u009b31m")))
    for verb in ("render", "tokenize"):
        out = in_terminal(lorry, verb, "--bucket", filled, "--messages", messages)
        out = out.replace("\x1b[32m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
        assert not any(c in out for c in "\x1b\x07\u202e\u009b"), out
    piped = lorry("render", "--bucket", filled, "--messages", messages).stdout
    assert "\x1b]0;title\x07\u202e\u009b31m" in piped


def test_two_examples_at_once_are_wrong_usage(lorry, filled, tmp_path):
    done = lorry("render", "--bucket", filled, "--row", 1, "--text", "x", code=WRONG_USAGE)
    assert "--row and --text" in last_line(done)
    done = lorry("render", "--bucket", filled, "--messages", tmp_path / "none", code=FAILED)
    assert "cannot read" in last_line(done)
