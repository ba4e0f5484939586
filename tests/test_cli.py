"""The command line as a user meets it: help, versions, exit codes, variables, .env, JSON."""

import json
import shutil
import subprocess

import pytest
from conftest import EXAMPLE_DATA, EXAMPLE_MODEL, on

FAILED, WRONG_USAGE = 1, 2
VERBS = (
    "import-dataset", "standardize", "import-model", "pretokenize", "train", "run", "serve",
    "chat", "status", "render", "tokenize",
)  # fmt: skip


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def test_help_lists_every_verb(lorry):
    for args in ((), ("--help",), ("help",)):
        text = lorry(*args).stdout
        assert all(f"\n  {verb} " in text for verb in VERBS), text


def test_version_is_one_line(lorry):
    assert lorry("--version").stdout.split()[0] == "lorry"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_an_example(lorry, verb):
    text = lorry(verb, "--help").stdout
    assert f"Usage: lorry {verb}" in text
    assert f"  lorry {verb}" in text.split("Example:")[1]
    assert lorry("help", verb).stdout == text


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_flag_of_any_verb_is_wrong_usage_and_gets_a_suggestion(lorry, verb):
    done = lorry(verb, "--buckt", "x", code=WRONG_USAGE)
    assert last_line(done) == "error: unknown flag --buckt; did you mean --bucket?"


def test_a_misspelt_verb_gets_a_suggestion(lorry):
    done = lorry("trian", code=WRONG_USAGE)
    assert last_line(done) == "error: there is no verb 'trian'; did you mean train?"
    assert "stands before the verb" in last_line(lorry("--json", "status", code=WRONG_USAGE))


@pytest.mark.parametrize("verb", ["import-dataset", "import-model"])
def test_an_import_without_a_source_is_wrong_usage(lorry, verb):
    assert "SOURCE is missing" in last_line(lorry(verb, code=WRONG_USAGE))


@pytest.mark.parametrize(
    "args, words",
    [
        (("train", "--epochs", "0"), "--epochs: 0 is out of range"),
        (("train", "--dtype", "int4"), "--dtype: 'int4' is not one of"),
        (("train", "--device", "tpu"), "--device: 'tpu' is not one of"),
        (("train", "--full", "--adapter", "."), "--full"),
        (("serve", "--port", "99999"), "--port: 99999 is out of range"),
        (("run", "only-one-source"), "run takes two sources"),
        (("status", "surplus"), "unexpected argument 'surplus'"),
        (("chat", "--json"), "--json needs --prompt"),
        (("train", "--max-steps"), "--max-steps needs a value"),
        (("train", "--dataset", "../up"), "--dataset: '../up' cannot be a name in the bucket"),
        (("import-model", ".", "--model", "/x"), "--model: '/x' cannot be a name in the bucket"),
        (("import-dataset", "x", "--set", "name"), "--set: 'name' is not name=value"),
    ],
)
def test_wrong_usage_names_the_flag(lorry, args, words):
    assert words in last_line(lorry(*args, code=WRONG_USAGE))


def test_an_error_is_json_too(lorry, bucket):
    done = lorry("status", "--bucket", bucket, "--json", code=FAILED)
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "not found" and str(bucket) in error["message"]


def test_wrong_usage_is_json_too(lorry):
    done = lorry("train", "--bogus", "--json", code=WRONG_USAGE)
    assert json.loads(done.stdout)["error"]["kind"] == "wrong usage"


# ---- variables and .env --------------------------------------------------------------------------


def run_in(lorry, directory, *args, env=None):
    return subprocess.run(
        [lorry.binary, *map(str, args)],
        cwd=directory,
        env={**lorry.env, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_flag_goes_before_a_variable_and_a_variable_before_dotenv(lorry, tmp_path):
    (tmp_path / ".env").write_text("# where things are\nexport BUCKET_NAME='./from-dotenv'\n")
    assert "./from-dotenv" in run_in(lorry, tmp_path, "status").stderr
    env = {"BUCKET_NAME": "./from-variable"}
    assert "./from-variable" in run_in(lorry, tmp_path, "status", env=env).stderr
    done = run_in(lorry, tmp_path, "status", "--bucket", "from-flag", env=env)
    assert "from-flag" in done.stderr and "from-variable" not in done.stderr
    assert "./from-dotenv" in run_in(lorry, tmp_path, "status", env={"BUCKET_NAME": ""}).stderr


def test_a_bare_bucket_name_means_s3(lorry, tmp_path):
    env = {"BUCKET_NAME": "mybucket", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = run_in(lorry, tmp_path, "status", env=env)
    assert done.returncode == WRONG_USAGE
    assert "no credentials" in done.stderr and "AWS_ACCESS_KEY_ID" in done.stderr


def test_a_malformed_line_of_dotenv_is_named_and_not_shown(lorry, tmp_path):
    (tmp_path / ".env").write_text("A=1\nhunter2\n")
    done = run_in(lorry, tmp_path, "status")
    assert done.returncode == FAILED
    assert ".env line 2" in done.stderr and "hunter2" not in done.stderr


def test_a_variable_out_of_range_is_named_with_its_place(lorry, tmp_path):
    (tmp_path / ".env").write_text("LORRY_BATCH_SIZE=0\n")
    done = run_in(lorry, tmp_path, "train")
    assert done.returncode == WRONG_USAGE
    assert "LORRY_BATCH_SIZE in .env line 1: 0 is out of range" in done.stderr


def test_a_line_of_dotenv_that_nothing_reads_is_said_aloud(lorry, tmp_path):
    (tmp_path / ".env").write_text("BUCKT_NAME=x\nHF_TOKEN=hf_secret\n")
    done = run_in(lorry, tmp_path, "status", "--verbose")
    assert "BUCKT_NAME" in done.stderr and "did you mean BUCKET_NAME?" in done.stderr
    assert "hf_secret" not in done.stderr + done.stdout


# ---- stages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(lorry, tmp_path_factory):
    """A bucket with both imports and the tokens."""
    bucket = tmp_path_factory.mktemp("filled") / "bucket"
    flags = ("--set", "name=Lorry", "--set", "author=the lorry project")
    lorry("import-dataset", EXAMPLE_DATA, "--bucket", bucket, "--dataset", "identity", *flags)
    lorry("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    lorry("pretokenize", *on(bucket))
    return bucket


def test_results_are_on_stdout_and_words_on_stderr(lorry, filled):
    done = lorry("pretokenize", *on(filled), "--json")
    result = json.loads(done.stdout)
    assert result["up_to_date"] is True and result["rows"] == 91
    quiet = lorry("pretokenize", *on(filled), "--quiet")
    assert quiet.stdout == "" and quiet.stderr == ""
    assert "\x1b" not in done.stderr + done.stdout


def test_the_only_data_set_and_model_are_taken_and_named(lorry, filled):
    done = lorry("pretokenize", "--bucket", filled)
    assert "model: demo" in done.stderr and "data set: identity" in done.stderr


def test_status_says_what_is_left(lorry, filled):
    run = json.loads(lorry("status", "--bucket", filled, "--json").stdout)["runs"][0]
    assert run["pretokenize"] == "done" and run["train"] == "missing"
    assert run["next"] == "lorry train --model demo --dataset identity"
    assert run["next"] in lorry("status", "--bucket", filled).stdout


def test_render_and_tokenize_agree_with_the_shard(lorry, filled):
    from datasets import load_from_disk

    row = load_from_disk(str(filled / "model-ready/demo/identity/0"))[7]
    shown = json.loads(lorry("tokenize", *on(filled), "--row", 7, "--json").stdout)
    assert shown["input_ids"] == row["input_ids"]
    assert shown["assistant_masks"] == row["assistant_masks"]
    text = json.loads(lorry("render", *on(filled), "--row", 7, "--json").stdout)["text"]
    assert "".join(shown["tokens"]) == text == shown["text"]
    assert lorry("tokenize", *on(filled), "--row", 7).stdout.count(" * ") == sum(
        row["assistant_masks"]
    )


def test_render_takes_messages_from_a_file(lorry, filled, tmp_path):
    path = tmp_path / "messages.json"
    path.write_text(json.dumps([{"role": "user", "content": "Hi there"}]))
    done = lorry("render", "--bucket", filled, "--messages", path, "--add-generation-prompt")
    assert "Hi there" in done.stdout
    path.write_text("{")
    done = lorry("render", "--bucket", filled, "--messages", path, code=FAILED)
    assert "messages.json: not valid JSON at line 1" in last_line(done)


def test_a_row_past_the_end_is_wrong_usage(lorry, filled):
    done = lorry("render", *on(filled), "--row", 91, code=WRONG_USAGE)
    assert "has 91 rows" in last_line(done)


def test_names_that_are_not_there_are_listed(lorry, filled):
    done = lorry("pretokenize", "--bucket", filled, "--model", "dmo", code=FAILED)
    assert "there is no model 'dmo'" in last_line(done) and "it has demo" in last_line(done)


def test_serving_what_was_not_trained_says_what_to_run(lorry, filled):
    done = lorry("serve", *on(filled), code=FAILED)
    assert "run lorry train first" in last_line(done)


def test_status_tells_tokens_of_data_that_changed(lorry, filled, tmp_path):
    bucket = tmp_path / "bucket"
    shutil.copytree(filled, bucket)
    flags = ("--set", "name=Other", "--set", "author=someone", "--bucket", bucket)
    lorry("standardize", *flags)
    run = json.loads(lorry("status", "--bucket", bucket, "--json").stdout)["runs"][0]
    assert run["pretokenize"] == "stale" and run["next"].startswith("lorry pretokenize ")
    assert "stale" in lorry("status", "--bucket", bucket).stdout


def test_conversations_need_a_chat_template(lorry, filled, tmp_path):
    model = tmp_path / "bare"
    shutil.copytree(EXAMPLE_MODEL, model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    bucket = tmp_path / "bucket"
    shutil.copytree(filled, bucket)
    assert "no chat template" in lorry("import-model", model, "--bucket", bucket).stderr
    done = lorry("pretokenize", "--bucket", bucket, "--model", "bare", code=FAILED)
    assert "models/bare has no chat template" in last_line(done)
    assert "import-model --chat-template" in last_line(done)
    assert "--skip-bad-rows" not in last_line(done)


def test_an_adapter_that_does_not_fit_is_named_with_its_directory(lorry, filled, tmp_path):
    adapter = tmp_path / "start"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 0}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    done = lorry("train", *on(filled), "--adapter", adapter, code=FAILED)
    assert f"{adapter}/adapter_config.json: `r` must be" in last_line(done)


def test_a_chat_in_the_terminal_takes_keys_and_ctrl_c(lorry, filled):
    import os
    import pty
    import time

    seen = ""

    def read_until(words, limit=60):
        nonlocal seen
        end = time.monotonic() + limit
        while words not in seen and time.monotonic() < end:
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                break
        assert words in seen, seen
        seen = seen.split(words, 1)[1]

    child, terminal = pty.fork()
    if child == 0:
        flags = ["--bucket", str(filled), "--base", "--max-tokens", "8"]
        os.execve(lorry.binary, [lorry.binary, "chat", *flags], lorry.env | {"TERM": "xterm"})
    read_until("> ")
    os.write(terminal, b"Who are yuo?" + b"\x1b[D" * 3 + b"\x1b[3~" + b"\x1b[Cu\r")
    read_until("Who are you?")
    read_until("\n\r> ")  # behind the answer
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_a_hub_that_is_not_there_is_named(lorry, bucket):
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "LORRY_HTTP_ATTEMPTS": "2"}
    done = lorry("import-model", "Qwen/Qwen2.5-0.5B", "--bucket", bucket, env=env, code=FAILED)
    assert "Qwen/Qwen2.5-0.5B: cannot reach http://127.0.0.1:9" in last_line(done)
    assert not bucket.exists(), "an empty bucket was left"
