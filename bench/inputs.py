"""What is measured on: made once under a work folder, from ../shared where it is there and from
examples/ where it is not. Everything is seeded, so two runs measure the same bytes."""

import json
import lzma
import os
import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("LORRY_SHARED", ROOT.parent / "shared"))
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "function_call": "assistant"}
SYLLABLES = [a + b for a in "b d f g k l m n p r s t v z ch st tr".split() for b in "a e i o u".split()]


QUESTION = (("user", "question"), ("assistant", "answer"))


def seed_conversations():
    """Lists of {role, content}: tool calls and instructions from LLaMA-Factory, or the example."""
    glaive = SHARED / "data" / "llama-factory" / "glaive_toolcall_en_demo.json"
    if glaive.exists():
        return [
            [{"role": ROLES.get(m["from"], "user"), "content": m["value"]} for m in row["conversations"]]
            for row in json.loads(glaive.read_text())
        ]
    return alpaca_conversations(ROOT / "examples" / "data" / "identity.jsonl")


def tool_conversations():
    """Conversations with tools, calls and results, as {"messages", "tools"}; none without ../shared."""
    glaive = SHARED / "data" / "llama-factory" / "glaive_toolcall_en_demo.json"
    if not glaive.exists():
        return []
    return [
        {"messages": [tool_message(turn) for turn in row["conversations"]],
         "tools": [{"type": "function", "function": tool} for tool in json.loads(row["tools"] or "[]")]}
        for row in json.loads(glaive.read_text())
    ]  # fmt: skip


def tool_message(turn):
    call_id = "abcdefgh0"  # as some templates ask for it
    if turn["from"] == "function_call":
        call = {"id": call_id, "type": "function", "function": json.loads(turn["value"])}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if turn["from"] == "observation":
        return {"role": "tool", "tool_call_id": call_id, "content": turn["value"]}
    return {"role": ROLES[turn["from"]], "content": turn["value"]}


def alpaca_conversations(path):
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [
        [
            {"role": "user", "content": (row["instruction"] + "\n" + row.get("input", "")).strip()},
            {"role": "assistant", "content": row["output"]},
        ]
        for row in rows
    ]


def conversations_file(work, rows):
    """`rows` conversations as {"messages": ...}, one a line; digits redrawn so that no two agree."""
    path = work / f"conversations-{rows}.jsonl"
    if path.exists():
        return path
    chance, seeds = random.Random(1), [json.dumps(c) for c in seed_conversations()]
    with path.open("w") as file:
        for i in range(rows):
            text = re.sub(r"(?<!\\u)\b\d+\b", lambda _: str(chance.randrange(1000)), seeds[i % len(seeds)])
            file.write(f'{{"id": {i}, "messages": {text}}}\n')
    return path


def conversations_parquet(work, rows):
    """The same rows in row groups of 10,000, as the Hub's converters write them."""
    path = work / f"conversations-{rows}.parquet"
    if path.exists():
        return path
    # In a process of its own: what is measured is forked from this one and begins with its peak.
    script = """
import pyarrow.json, pyarrow.parquet, sys
read = pyarrow.json.ReadOptions(block_size=64 << 20)
table = pyarrow.json.read_json(sys.argv[1], read_options=read)
pyarrow.parquet.write_table(table, sys.argv[2], row_group_size=10_000)
"""
    subprocess.run([sys.executable, "-c", script, conversations_file(work, rows), path], check=True)
    return path


def repeated_file(work, source, size):
    """`source` over and over, at least `size` bytes."""
    path = work / f"big-{size}.jsonl"
    if path.exists():
        return path
    times = -(-size // source.stat().st_size)
    with path.open("wb") as file:  # through `cat`: this process stays small
        subprocess.run(["cat", *[source] * times], stdout=file, check=True)
    return path


def documents_file(work, kind, megabytes):
    """Texts of a kind of TEXTS, divided by NUL bytes."""
    path = work / f"documents-{kind}-{megabytes}.bin"
    if path.exists():
        return path
    chance, size, parts = random.Random(1), 0, []
    make = TEXTS[kind](chance)
    while size < megabytes * 1_000_000:
        parts.append(make().replace("\0", " ").encode())
        size += len(parts[-1]) + 1
    path.write_bytes(b"\0".join(parts))
    return path


def redrawn(text, chance, words):
    """With other digits, and one of 15 words made up, so that no cache has seen it."""

    def redraw(match):
        if chance.random() > 1 / 15:
            return match[0]
        return "".join(chance.choices(SYLLABLES, k=chance.randint(2, 4)))

    return re.sub(words, redraw, re.sub(r"\d", lambda _: chance.choice("0123456789"), text))


def varied(chance):
    """Questions, instructions and answers, most in English."""
    texts = ["\n".join(m["content"] for m in c) for c in more_conversations() or seed_conversations()]
    return lambda: redrawn(chance.choice(texts), chance, r"[A-Za-z]{4,}")


def random_words(chance):
    letters = "abcdefghijklmnopqrstuvwxyz"

    def word():
        return "".join(chance.choices(letters, k=chance.randint(3, 12)))

    return lambda: " ".join(word() for _ in range(chance.randint(20, 150)))


def chinese(chance):
    """Runs of Chinese text cut at random, which are words that hardly come again."""
    texts = "".join(m["content"] for c in more_conversations() for m in c)
    han = "".join(re.findall("[\u4e00-\u9fff]", texts)) or "".join(map(chr, range(0x4E00, 0x6000)))

    def run():
        at = chance.randrange(len(han) - 20)
        return han[at : at + chance.randint(2, 14)] + chance.choice("，。、！？：")

    return lambda: "".join(run() for _ in range(chance.randint(5, 30)))


def code(chance):
    """This project's own, at random places."""
    files = [path for kind in ("cc", "h", "py") for path in sorted(ROOT.rglob(f"[a-z]*/**/*.{kind}"))]
    texts = [path.read_text() for path in files if "/build/" not in str(path)]

    def part():
        text = chance.choice(texts)
        at = chance.randrange(max(1, len(text) - 3000))
        return redrawn(text[at : at + 3000], chance, r"[A-Za-z_]{5,}")

    return part


TEXTS = {"varied": varied, "random_words": random_words, "chinese": chinese, "code": code}


def more_conversations():
    folder = SHARED / "data" / "llama-factory"
    files = [folder / f"alpaca_{language}_demo.json" for language in ("en", "zh")]
    out = [c for file in files if file.exists() for c in alpaca_conversations(file)]
    for file in sorted((SHARED / "data" / "gsm8k").glob("*.jsonl")):
        rows = map(json.loads, file.read_text().splitlines())
        out += [[{"role": role, "content": row[key]} for role, key in QUESTION] for row in rows]
    return out


def training_file(work):
    """What both trainers read: instructions and answers, {"messages": ...} a line."""
    path = work / "training.jsonl"
    source = SHARED / "data" / "llama-factory" / "alpaca_en_demo.json"
    if not source.exists():
        source = ROOT / "examples" / "data" / "identity.jsonl"
    with path.open("w") as file:
        for messages in alpaca_conversations(source):
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def write_tokenizer(directory):
    """Qwen 2.5's tokenizer and template, or the example model's."""
    directory.mkdir(parents=True, exist_ok=True)
    qwen = SHARED / "tokenizers" / "qwen2_5"
    if qwen.is_dir():
        packed = (qwen / "tokenizer.json.xz").read_bytes()
        (directory / "tokenizer.json").write_bytes(lzma.decompress(packed))
        config = (qwen / "tokenizer_config.json").read_bytes()
        (directory / "tokenizer_config.json").write_bytes(config)
        return directory
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (directory / name).write_bytes((ROOT / "examples" / "model" / name).read_bytes())
    return directory


LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_llama3_tokenizer(directory):
    """The same vocabulary in the manner of Llama 3: its pattern, no normalizer, tokens that are
    taken whole before anything is merged."""
    write_tokenizer(directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_]}
    tokenizer["normalizer"] = None
    tokenizer["model"]["ignore_merges"] = True
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return directory


def model_directory(work):
    """A random checkpoint in the shape of Qwen2.5-0.5B (bf16, tied head): weights do not matter for
    speed. LORRY_BENCH_MODEL names another directory."""
    if os.environ.get("LORRY_BENCH_MODEL"):
        return pathlib.Path(os.environ["LORRY_BENCH_MODEL"])
    directory = work / "qwen2.5-0.5b-random"
    if (directory / "model.safetensors").exists():
        return directory
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    write_tokenizer(directory)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory
