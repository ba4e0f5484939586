"""lorry beside its peers, on the same input in one run: `bench.py [WHAT ...]`, WHAT one of import,
store, template, templates, tokenize, sample, train, serve, all. Prints `metric value unit` and, for each pair, a ratio above 1
where lorry is the faster (docs/benchmarks.md)."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import inputs
import store
import template_bench
import tokenize_bench

BUILD = pathlib.Path(os.environ.get("LORRY_BUILD", inputs.ROOT / "build" / "release"))
WORK = pathlib.Path(os.environ.get("LORRY_BENCH_WORK", inputs.ROOT / "build" / "bench"))
CORES = os.cpu_count()


def say(metric, value, unit):
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    print(f"{metric} {value:.{digits}f} {unit}", flush=True)


def versus(metric, ours, theirs, unit, peer):
    say(f"{metric}.lorry", ours, unit)
    say(f"{metric}.{peer}", theirs, unit)
    say(f"{metric}.ratio", ours / theirs, "x")


# A process begins with the peak RSS of the one that it was forked from: so measured programs are
# started by a small one, which says how long they took and what they held.
LAUNCHER = """
import json, os, sys, time
start = time.time()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as report:
    json.dump({"seconds": time.time() - start, "rss": usage.ru_maxrss / 1024}, report)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def timed(command, env=None):
    """(seconds, peak RSS in MB, stdout) of a command; its stderr is shown if it fails."""
    with (
        tempfile.NamedTemporaryFile("r") as report,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, report.name, *map(str, command)],
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
        )
        out.seek(0)
        err.seek(0)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(map(str, command))}\n{err.read()[-3000:]}")
        measured = json.load(report)
        return measured["seconds"], measured["rss"], out.read()


def lorry(*args):
    return timed([BUILD / "lorry", *args])


def peer(*args, env=None):
    """The figures a peer printed, with its peak RSS in MB."""
    script = pathlib.Path(__file__).with_name("peers.py")
    _, rss, out = timed([sys.executable, script, *args], env)
    return {**json.loads(out.strip().splitlines()[-1]), "rss": rss}


def fresh(name):
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    return path


def bench_import():
    """JSONL and Parquet into raw shards, and on into standardized ones; each from a cold start of the
    program. On the disk of the work folder, and in memory where there is /dev/shm, which tells what
    the disk costs. LORRY_BENCH_BIG=1 measures the peak memory of 10 GB too."""
    rows = int(os.environ.get("LORRY_BENCH_ROWS", "100000"))
    for kind, make in (("jsonl", inputs.conversations_file), ("parquet", inputs.conversations_parquet)):
        source = make(WORK, rows)
        theirs = peer("import", source, fresh("import-shards"), WORK / "cache")
        rate = theirs["rows"] / theirs["seconds"]
        for place, base in places().items():
            seconds, rss = import_once(source, base, "--no-standardize")
            versus(f"import.{kind}.{place}", rows / seconds, rate, "examples/s", "datasets")
            say(f"import.{kind}.{place}.lorry.bytes", source.stat().st_size / 1e6 / seconds, "MB/s")
            say(f"import.{kind}.{place}.lorry.peak_rss", rss, "MB")
            seconds, rss = import_once(source, base, "--standardize")
            versus(f"import.{kind}.{place}.standardized", rows / seconds, rate, "examples/s", "datasets")
            say(f"import.{kind}.{place}.standardized.lorry.peak_rss", rss, "MB")
        say(f"import.{kind}.datasets.peak_rss", theirs["rss"], "MB")
    if os.environ.get("LORRY_BENCH_BIG"):
        big = inputs.repeated_file(WORK, inputs.conversations_file(WORK, rows), 10_000_000_000)
        seconds, rss = import_once(big, WORK, "--no-standardize")
        say("import.10GB.lorry.bytes", big.stat().st_size / 1e6 / seconds, "MB/s")
        say("import.10GB.lorry.peak_rss", rss, "MB")
        big.unlink()


def places():
    shm = pathlib.Path("/dev/shm")
    return {"disk": WORK, **({"memory": shm} if shm.is_dir() else {})}


def import_once(source, base, *flags):
    """Seconds and peak RSS in MB; the best of three, as it is short."""
    bucket, runs = base / "lorry-bench-import", []
    for _ in range(3):
        shutil.rmtree(bucket, ignore_errors=True)
        runs.append(lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d", *flags)[:2])
    shutil.rmtree(bucket, ignore_errors=True)
    return min(seconds for seconds, _ in runs), max(rss for _, rss in runs)


def bench_template():
    """Templates alone, then templates and tokens as a stage (shards in, shards out)."""
    rows = 20_000
    source, model = inputs.conversations_file(WORK, rows), inputs.write_tokenizer(WORK / "tokenizer")
    seconds, count, _ = text_bench("render", model, source, CORES)
    theirs = peer("template", source, model, WORK / "cache")
    versus("template", count / seconds, rows / theirs["template"], "examples/s", "datasets_map")
    bucket = fresh("template-bucket")
    lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d")
    lorry("import-model", inputs.model_directory(WORK), "--bucket", bucket, "--model", "m")
    seconds, rss, _ = lorry("pretokenize", "--bucket", bucket, "--dataset", "d", "--model", "m")
    versus("pretokenize", rows / seconds, rows / theirs["both"], "examples/s", "datasets_map")
    say("pretokenize.lorry.peak_rss", rss, "MB")


def bench_templates():
    template_bench.run(say, BUILD / "lorry_text_bench", WORK)


def text_bench(mode, model, source, threads):
    _, _, out = timed([BUILD / "lorry_text_bench", mode, model, source, threads])
    seconds, items, amount = out.split()[:3]
    return float(seconds), int(items), int(amount)


def training_rate(bucket):
    """Tokens a second over all steps but the first, which also warms caches up."""
    lines = (bucket / "done" / "m" / "d" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][1:]
    seconds = sum(step_tokens(r) / r["tokens_per_second"] for r in records)
    return sum(map(step_tokens, records)) / seconds


def step_tokens(record):
    return record["tokens"]


def bench_train():
    """LoRA on a 0.5 B model, rows of 1,024 tokens packed and rows of one example; both sides in bf16
    where the processor multiplies it, else in float32."""
    steps = int(os.environ.get("LORRY_BENCH_STEPS", "4"))
    source, model, bucket = inputs.training_file(WORK), inputs.model_directory(WORK), fresh("train-bucket")
    lorry("import-dataset", source, "--bucket", bucket, "--dataset", "d")
    lorry("import-model", model, "--bucket", bucket, "--model", "m")
    lorry("pretokenize", "--bucket", bucket, "--dataset", "d", "--model", "m")
    for name, batch, accumulation in (("packing", 1, 2), ("no-packing", 2, 1)):
        sizes = ("--batch-size", batch, "--gradient-accumulation-steps", accumulation)
        flags = ("--max-steps", steps, "--max-length", 1024, f"--{name}", "--dtype", "auto")
        where = ("--bucket", bucket, "--dataset", "d", "--model", "m", "--fresh")
        _, rss, _ = lorry("train", *where, *flags, *sizes)
        theirs = peer("train", source, model, steps, 1024, name, WORK / "trl")
        rate = theirs["tokens"] / theirs["seconds"]
        versus(f"train.{name}", training_rate(bucket), rate, "tokens/s", "trl")
        say(f"train.{name}.lorry.peak_rss", rss, "MB")
        say(f"train.{name}.trl.peak_rss", theirs["rss"], "MB")


WORDS = "river stone window market garden silver engine letter bridge paper forest music".split()
NEW_TOKENS, STREAMS = 64, (1, 4, 16)


@contextlib.contextmanager
def serving(name, port, *command):
    """A server while it is measured, after its first answer."""
    start = time.time()
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(server, port)
        say(f"serve.{name}.ready", time.time() - start, "s")
        complete(port, 2)
        yield
    finally:
        server.terminate()
        server.wait()


def lorry_server(bucket, port, *flags):
    return [BUILD / "lorry", "serve", "--bucket", bucket, "--model", "m", "--port", port, *flags]


def bench_serve():
    """Greedy answers of 64 tokens to prompts of about 64, at 1, 4 and 16 requests at once."""
    model, bucket = inputs.model_directory(WORK), fresh("serve-bucket")
    lorry("import-model", model, "--bucket", bucket, "--model", "m")
    if os.environ.get("LORRY_BENCH_LLAMA"):
        return bench_beside_llama(bucket)
    with serving("lorry", 18347, *lorry_server(bucket, 18347)):
        ours = {streams: serving_rate(18347, streams) for streams in STREAMS}
    theirs = peer("generate", model, NEW_TOKENS, 64, *STREAMS)
    for streams, rate in ours.items():
        versus(f"serve.{streams}streams", rate, theirs[str(streams)], "tokens/s", "transformers")


def bench_beside_llama(bucket):
    """The same beside llama.cpp, in turn, each format beside its own: LORRY_BENCH_LLAMA names llama-server, LORRY_BENCH_GGUF a folder
    with bf16.gguf, Q8_0.gguf and Q4_0.gguf of the model. Prompts are of 500 words with one new token."""
    folder, rounds = pathlib.Path(os.environ["LORRY_BENCH_GGUF"]), int(os.environ.get("LORRY_BENCH_ROUNDS", "3"))
    for quantization, gguf in (("none", "bf16"), ("int8", "Q8_0"), ("int4", "Q4_0")):
        ours = lorry_server(bucket, 18347, "--quantization", quantization)
        theirs = [os.environ["LORRY_BENCH_LLAMA"], "-m", folder / f"{gguf}.gguf", "--port", 18348, "-t", os.cpu_count()]
        theirs += ["-c", 64 * 1024, "-np", 64, "--no-webui"]
        with serving("lorry", 18347, *ours), serving("llama", 18348, *theirs):
            for streams in (*STREAMS, 64):
                rates = [[serving_rate(port, streams) for port in (18347, 18348)] for _ in range(rounds)]
                versus_best(f"serve.{quantization}.{streams}streams", rates)
            versus_best(f"serve.{quantization}.prompt", [[prompt_rate(port) for port in (18347, 18348)] for _ in range(rounds)])


def versus_best(name, rates):
    versus(name, max(ours for ours, _ in rates), max(theirs for _, theirs in rates), "tokens/s", "llama.cpp")


def wait_until_ready(server, port):
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return
        except OSError:
            time.sleep(0.01)
    sys.exit(f"bench: lorry serve ended with {server.returncode}")


def complete(port, new_tokens, words=50):
    return usage(port, new_tokens, words)["completion_tokens"]


def prompt_rate(port):
    start = time.time()
    tokens = usage(port, 1, 500)["prompt_tokens"]
    return tokens / (time.time() - start)


def usage(port, new_tokens, words):
    prompt = " ".join(random.choices(WORDS, k=words))
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "ignore_eos": True}
    body |= {"max_tokens": new_tokens, "temperature": 0}
    url, header = f"http://127.0.0.1:{port}/v1/chat/completions", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), header)
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.loads(response.read())["usage"]


def serving_rate(port, streams):
    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        tokens = sum(pool.map(lambda _: complete(port, NEW_TOKENS), range(streams)))
    return tokens / (time.time() - start)


def bench_sample():
    """The sampler alone, in microseconds a step; a ratio is a setting's time beside greedy."""
    _, _, out = timed([BUILD / "lorry_sample_bench", 151936])
    lines = [line.split() for line in out.splitlines()]
    greedy = {rows: float(us) for name, rows, us in lines if name == "greedy"}
    for name, rows, us in lines:
        say(f"sample.{name}.{rows}_rows", float(us), "us")
        if name != "greedy":
            say(f"sample.{name}.{rows}_rows.over_greedy", float(us) / greedy[rows], "x")


BENCHES = {
    "import": bench_import,
    "store": lambda: store.bench_store(BUILD, say),
    "template": bench_template,
    "templates": bench_templates,
    "tokenize": lambda: tokenize_bench.bench_tokenize(BUILD, WORK, say),
    "sample": bench_sample,
    "train": bench_train,
    "serve": bench_serve,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or ["all"]
    if "all" in chosen:
        chosen = list(BENCHES)
    for name in chosen:
        if name not in BENCHES:
            sys.exit(f"bench: no '{name}'; one of {', '.join(BENCHES)}, all")
    WORK.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        BENCHES[name]()
