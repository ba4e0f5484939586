"""Tokenizers beside HF `tokenizers` and gigatoken: the first pass over texts that no cache has seen,
in a process of its own each time, in turns; the median of the rounds is printed."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import inputs

ROUNDS = int(os.environ.get("LORRY_BENCH_TOKENIZE_ROUNDS", "3"))
MEGABYTES = {"varied": 50, "random_words": 20, "chinese": 20, "code": 20}
SAMPLE = 5  # MB for HF tokenizers, which would take minutes
VOCABULARIES = {"qwen2.5": inputs.write_tokenizer, "llama3": inputs.write_llama3_tokenizer}
PEERS = pathlib.Path(__file__).with_name("peers.py")
GIGATOKEN = inputs.ROOT / ".venv-bench" / "bin" / "python"


def ours(build, model, source, threads):
    command = [build / "lorry_text_bench", "encode", model, source, str(threads)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {"seconds": float(out[0]), "tokens": int(out[2]), "load": float(out[4])}


def peer(python, what, model, source, threads):
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    command = [python, PEERS, what, source, model]
    # The peers count the processors they may run on.
    processors = set(sorted(os.sched_getaffinity(0))[:threads])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=env,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(runs, what):
    return statistics.median(run[what] for run in runs)


def measure(build, work, say, vocabulary, kind, threads):
    model = VOCABULARIES[vocabulary](work / f"tokenizer-{vocabulary}")
    source = inputs.documents_file(work, kind, MEGABYTES[kind])
    sample = inputs.documents_file(work, kind, SAMPLE)
    runs = {"lorry": [], "tokenizers": [], "gigatoken": []}
    for _ in range(ROUNDS):
        runs["lorry"].append(ours(build, model, source, threads))
        if GIGATOKEN.exists():
            runs["gigatoken"].append(peer(GIGATOKEN, "gigatoken", model, source, threads))
    runs["tokenizers"].append(peer(sys.executable, "encode", model, sample, threads))
    same = ours(build, model, sample, threads)["tokens"] == runs["tokenizers"][0]["tokens"]
    if not same:
        print(f"# {vocabulary} {kind}: the token counts of lorry and tokenizers differ")
    name = f"tokenize.{vocabulary}.{kind}.{threads}core"
    rates = {}
    for who, mine in runs.items():
        if not mine:
            continue
        size = (sample if who == "tokenizers" else source).stat().st_size / 1e6
        rates[who] = size / median(mine, "seconds")
        say(f"{name}.{who}", rates[who], "MB/s")
    for who in ("tokenizers", "gigatoken"):
        if who in rates:
            say(f"{name}.ratio.{who}", rates["lorry"] / rates[who], "x")
    return runs


def bench_tokenize(build, work, say):
    threads = sorted({1, os.cpu_count()})
    for vocabulary in VOCABULARIES:
        for kind in MEGABYTES:
            for count in threads:
                runs = measure(build, work, say, vocabulary, kind, count)
        for who, mine in runs.items():
            if mine:
                say(f"tokenize.{vocabulary}.load.{who}", 1e3 * median(mine, "load"), "ms")
