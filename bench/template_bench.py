"""Rendering template by template beside `apply_chat_template`, CPU time of one core each, on the same
conversations in turn: questions with one answer, ten turns, and tools with their calls and results. The
templates are those of ../shared, of the example model, and the published ones that TRL comes with.

Conversations that a template refuses are left out on both sides. Both go over them several times; the best
of three rounds counts. That both write the same text is checked by its size."""

import importlib.util
import json
import pathlib
import statistics
import subprocess
import time

import inputs

ROWS = 60  # of each kind
OUR_PASSES, PEER_PASSES = 40, 4


def templates():
    found = {"example": (inputs.ROOT / "examples" / "model" / "chat_template.jinja").read_text()}
    for path in sorted(inputs.SHARED.glob("models/*/chat_template.jinja")):
        found[f"shared_{path.parent.name}"] = path.read_text()
    for path in sorted(inputs.SHARED.glob("tokenizers/*/tokenizer_config.json")):
        source = json.loads(path.read_text()).get("chat_template")
        if isinstance(source, str):
            found[f"shared_{path.parent.name}"] = source
    trl = importlib.util.find_spec("trl")
    if trl is not None:
        for path in sorted(pathlib.Path(trl.origin).parent.glob("chat_templates/*.jinja")):
            if not path.stem.endswith("_training"):
                found[path.stem] = path.read_text()
    return found


def conversations():
    single = [{"messages": messages} for messages in inputs.more_conversations()[::20]]
    flat = [message for row in single for message in row["messages"]]
    system = {"role": "system", "content": "You are a helpful assistant."}
    turns = [{"messages": [system, *flat[i : i + 10]]} for i in range(0, len(flat) - 10, 10)]
    sets = {"single": single, "turns": turns, "tools": inputs.tool_conversations()}
    return {kind: rows[:ROWS] for kind, rows in sets.items() if rows}


def write_model(directory, source):
    """The example's tokenizer with another template."""
    directory.mkdir(parents=True, exist_ok=True)
    example = inputs.ROOT / "examples" / "model"
    (directory / "tokenizer.json").write_bytes((example / "tokenizer.json").read_bytes())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(source)
    return directory


def rendered(tokenizer, rows):
    """The rows that a template takes, and the bytes of their texts."""
    taken, size = [], 0
    for row in rows:
        try:
            text = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
        except Exception:  # raise_exception, roles that it does not know
            continue
        taken.append(row)
        size += len(text.encode())
    return taken, size


def peer_seconds(tokenizer, rows):
    start = time.process_time()
    for row in rows * PEER_PASSES:
        tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
    return (time.process_time() - start) / PEER_PASSES


def our_seconds(bench, model, file, size):
    command = [bench, "render", model, file, "1", str(OUR_PASSES)]
    _, _, written, seconds, _ = subprocess.run(command, capture_output=True, check=True).stdout.split()
    if int(written) != size * OUR_PASSES:
        raise RuntimeError(f"{model}: {int(written) // OUR_PASSES} bytes of text, transformers writes {size}")
    return float(seconds) / OUR_PASSES


def run(say, bench, work):
    from transformers import AutoTokenizer

    ratios = {}
    sets = conversations()
    for name, source in templates().items():
        model = write_model(work / "templates" / name, source)
        tokenizer = AutoTokenizer.from_pretrained(model)
        for kind, rows in sets.items():
            rows, size = rendered(tokenizer, rows)
            if len(rows) < 20:
                continue
            file = model / f"{kind}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            rounds = [(our_seconds(bench, model, file, size), peer_seconds(tokenizer, rows)) for _ in range(3)]
            ours, theirs = map(min, zip(*rounds))
            ratios.setdefault(kind, []).append(theirs / ours)
            say(f"templates.{name}.{kind}.lorry", 1e6 * ours / len(rows), "us")
            say(f"templates.{name}.{kind}.apply_chat_template", 1e6 * theirs / len(rows), "us")
            say(f"templates.{name}.{kind}.ratio", theirs / ours, "x")
    for kind, all_of_kind in ratios.items():
        say(f"templates.{kind}.least", min(all_of_kind), "x")
        say(f"templates.{kind}.median", statistics.median(all_of_kind), "x")
