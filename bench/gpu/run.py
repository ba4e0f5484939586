"""What run.sh runs: parts in order of worth, each under a time limit, none begun that the rest of the
time is too short for. `RESULT name value unit` lines last; exit code 1 if a part failed."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

WORDS = "river stone window market garden silver engine letter bridge paper forest music".split()


class Failed(Exception):
    pass


class Run:
    """Arguments, clock, results and the programs that are started."""

    def __init__(self, args):
        self.args, self.small, self.gpu = args, args.small, args.device == "cuda"
        self.work, self.out = pathlib.Path(args.work), pathlib.Path(args.out)
        self.end = time.time() + 60 * args.minutes
        self.lines, self.failed = [], False
        self.bucket = self.work / "bucket"
        self.out.mkdir(parents=True, exist_ok=True)
        self.made = set()

    def say(self, name, value, unit):
        digits = 0 if abs(value) >= 1000 else 2
        self.lines.append(f"RESULT {name} {value:.{digits}f} {unit}")
        print(self.lines[-1], flush=True)

    def note(self, text):
        self.lines.append(text)
        print(text, flush=True)

    def left(self):
        return self.end - time.time()

    def start(self, name, command, env=None):
        """A program in a process group of its own; its output goes to a log."""
        log = (self.out / f"{name}.log").open("a")
        log.write(f"$ {' '.join(map(str, command))}\n")
        log.flush()
        everything = os.environ | (env or {})
        return subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, env=everything, cwd=self.work, start_new_session=True
        )

    def wait(self, name, process, limit):
        try:
            code = process.wait(min(limit, max(1, self.left())))
        except subprocess.TimeoutExpired:
            stop(process, signal.SIGKILL)
            raise Failed(f"not done after {limit} s") from None
        if code != 0:
            raise Failed(f"exit code {code}; the end of {name}.log:\n{self.tail(name)}")

    def call(self, name, command, limit, env=None):
        start = time.time()
        self.wait(name, self.start(name, command, env), limit)
        return time.time() - start

    def log(self, name):
        path = self.out / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def tail(self, name):
        return "\n".join(self.log(name).splitlines()[-8:])

    def lorry(self, name, verb, *args, limit):
        return self.call(name, [self.work / "bin/lorry", verb, "--bucket", self.bucket, *args], limit)

    def python(self, name, script, *args, limit):
        env = {"PYTHONPATH": str(self.work / "site"), "HF_HUB_OFFLINE": "1"}
        env["LD_LIBRARY_PATH"] = ""  # the peers' libraries are their own
        return self.call(name, [sys.executable, self.work / script, *args], limit, env)


def stop(process, how=signal.SIGTERM):
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        pass
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# ---- tests and rates of the kernels --------------------------------------------------------------


def part_machine(run):
    if run.gpu:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        run.note("MACHINE " + subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip())
    run.call("doctor", [run.work / "bin/lorry", "doctor", "--bucket", run.bucket, "--device", run.args.device], 60)


def part_tests(run):
    patterns = ["CudaModule*", "OnGpu*"] + [f"*/cuda_{dtype}" for dtype in ("Float", "BFloat16", "Half")]
    if not run.gpu:
        patterns = ["RopeKernels*/cuda_on_host_*", "GateKernels*/cuda_on_host_*"]
    command = [run.work / "bin/lorry_ops_test", f"--gtest_filter={':'.join(patterns)}"]
    try:
        run.call("tests", command, 120)
    finally:
        found = {word: re.search(rf"\[  {word}  \] (\d+) tests?", run.log("tests")) for word in ("PASSED", "FAILED")}
        for word, match in found.items():
            run.say(f"tests.{word.lower()}", int(match[1]) if match else 0, "tests")


def part_ops(run):
    if not run.gpu:
        return run.note("ops: rates are those of a GPU")
    run.call("ops", [run.work / "bin/lorry_ops_bench"], 90)
    for line in run.log("ops").splitlines():
        if line.startswith("RESULT "):
            run.note(line)


# ---- training ------------------------------------------------------------------------------------


def make(run, shape):
    """A model of random weights, imported under its shape's name, and the rows tokenized for it."""
    if shape in run.made:
        return
    folder = run.work / f"model-{shape}"
    run.python("make", "make_model.py", folder, shape, run.args.device, limit=120)
    seconds = run.lorry("import", "import-model", folder, "--model", shape, limit=120)
    run.say(f"import.{shape}", sum(f.stat().st_size for f in folder.iterdir()) / seconds / 1e6, "MB/s")
    if shape == "8b":
        shutil.rmtree(folder)  # the bucket has it
    if not run.made:
        run.lorry("import", "import-dataset", run.work / "rows.jsonl", "--dataset", "rows", limit=60)
    run.lorry("pretokenize", "pretokenize", "--dataset", "rows", "--model", shape, limit=120)
    run.made.add(shape)


class Memory:
    """The most memory of the GPU that was in use, in MiB, looked at twice a second."""

    def __init__(self, run):
        self.most, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self.look) if run.gpu else None

    def look(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self.done.wait(0.5):
            used = subprocess.run(query, capture_output=True, text=True).stdout.split()
            self.most = max([self.most, *map(int, used[:1])])

    def __enter__(self):
        if self.thread:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        if self.thread:
            self.thread.join()


def step_rates(text):
    return [float(rate) for rate in re.findall(r"step \d+/\d+ .* (\d+) tokens/s", text)]


def train(run, name, shape, steps, seconds, *flags, env=None):
    """Tokens a second of the steps after the first five. The run is stopped after so many steps, or
    seconds of steps, so that no time goes into its 16-bit model."""
    command = [run.work / "bin/lorry", "train", "--bucket", run.bucket, "--model", shape, "--dataset", "rows"]
    command += ["--run-name", name, "--fresh", "--max-steps", 10 * steps, "--device", run.args.device, *flags]
    with Memory(run) as memory:
        process, limit, count = run.start(name, command, env), min(time.time() + 90, run.end), 0
        while process.poll() is None and count < steps and time.time() < limit:
            time.sleep(0.1)
            begins, count = count == 0, len(step_rates(run.log(name)))
            if begins and count > 0:
                limit = min(time.time() + seconds, run.end)
        if process.poll() is None:
            stop(process)
    rates = step_rates(run.log(name))
    if len(rates) <= 6 or process.returncode not in (0, 130, 143):
        raise Failed(f"{len(rates)} steps, exit code {process.returncode}; {run.tail(name)}")
    warm = rates[5:]
    run.say(f"{name}.rate", len(warm) / sum(1 / rate for rate in warm), "tokens/s")
    if run.gpu:
        run.say(f"{name}.memory", memory.most / 1024, "GiB")


def sizes(length, batch, accumulation):
    return ("--max-length", length, "--batch-size", batch, "--gradient-accumulation-steps", accumulation)


def part_train_small(run):
    shape = "small" if run.small else "0.5b"
    make(run, shape)
    if run.small:
        train(run, "train.small.packed", shape, 8, 30, "--packing", *sizes(256, 1, 1))
        return train(run, "train.small.rows", shape, 8, 30, "--no-packing", *sizes(256, 2, 1))
    train(run, "train.0.5b.packed", shape, 40, 20, "--packing", *sizes(4096, 2, 4))
    train(run, "train.0.5b.rows", shape, 120, 15, "--no-packing", *sizes(4096, 2, 4))


def part_train_8b(run):
    make(run, "8b")
    train(run, "train.8b.packed", "8b", 14, 40, "--packing", *sizes(4096, 2, 2))


def part_train_8b_fp8(run):
    make(run, "8b")
    train(run, "train.8b.fp8", "8b", 12, 40, "--packing", "--base-format", "fp8", *sizes(4096, 2, 2))


def profile(run, shape, *flags):
    """A table of one step's kernels in the log, and a trace."""
    make(run, shape)
    name = f"profile.{shape}"
    trace = {"LORRY_PROFILE_STEP": str((run.out / f"{name}.json").resolve())}
    train(run, name, shape, 8, 40, "--packing", *flags, env=trace)
    for line in run.log(name).splitlines():
        if " ms " in line and ("one step in" in line or line.endswith("  all")):
            run.note(f"{name}: {line.strip()}")


def part_profile(run):
    profile(run, "small", *sizes(256, 1, 1)) if run.small else profile(run, "0.5b", *sizes(4096, 2, 1))


def part_profile_8b(run):
    profile(run, "8b", *sizes(4096, 2, 1))


# ---- serving -------------------------------------------------------------------------------------


def complete(port, model, new_tokens):
    """(tokens, seconds) of one answer to about 64 tokens."""
    body = {"model": model, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": " ".join(random.choices(WORDS, k=50))}]
    url, start = f"http://127.0.0.1:{port}/v1/chat/completions", time.time()
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read())["usage"]["completion_tokens"], time.time() - start


def wait_until_ready(run, name, server, port, limit):
    end = time.time() + limit
    while server.poll() is None and time.time() < end:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
        except OSError:
            time.sleep(0.02)
    raise Failed(f"the server is not ready: {run.tail(name)}")


def serve(run, name, shape, new_tokens, streams):
    make(run, shape)
    port, start = random.randrange(20000, 30000), time.time()
    command = [run.work / "bin/lorry", "serve", "--bucket", run.bucket, "--model", shape, "--port", port]
    server = run.start(name, [*command, "--device", run.args.device])
    try:
        wait_until_ready(run, name, server, port, 90)
        run.say(f"{name}.ready", time.time() - start, "s")
        complete(port, shape, 4)
        for count in streams:
            measure(run, f"{name}.{count}", port, shape, new_tokens, count)
    finally:
        stop(server)


def measure(run, name, port, model, new_tokens, streams):
    """Closed loop: two answers a stream."""
    if run.left() < 20:
        return run.note(f"{name}: skipped, no time is left")
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        start = time.time()
        done = list(pool.map(lambda _: complete(port, model, new_tokens), range(2 * streams)))
        seconds = time.time() - start
    run.say(f"{name}.rate", sum(tokens for tokens, _ in done) / seconds, "tokens/s")
    run.say(f"{name}.latency", sorted(s for _, s in done)[len(done) // 2], "s")


def part_serve_small(run):
    shape = "small" if run.small else "0.5b"
    serve(run, f"serve.{shape}", shape, 8 if run.small else 128, (1, 4) if run.small else (1, 16, 64, 256))


def part_serve_8b(run):
    serve(run, "serve.8b", "8b", 64, (1, 64))


# ---- peers ---------------------------------------------------------------------------------------


def peer(run, name, needs, *args):
    script = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {needs!r})))"
    env = os.environ | {"PYTHONPATH": str(run.work / "site"), "LD_LIBRARY_PATH": ""}
    if subprocess.run([sys.executable, "-c", script], env=env).returncode != 0:
        return run.note(f"{name}: not measured, {', '.join(needs)} are not all here")
    run.python(name, "peers.py", *args, run.args.device, limit=90)
    for line in run.log(name).splitlines():
        if line.startswith("PEER "):
            key, value, unit = line.split()[1:]
            run.say(key, float(value), unit)


def peer_model(run):
    """The 0.5 B checkpoint, or the small one, as the peers read it."""
    shape = "small" if run.small else "0.5b"
    make(run, shape)
    return shape, run.work / f"model-{shape}"


def part_generate(run):
    shape, model = peer_model(run)
    new, streams = (8, (1, 4)) if run.small else (128, (1, 16, 64, 256))
    peer(run, "transformers", ["transformers"], "generate", f"generate.{shape}", model, new, *streams)


def part_trl(run):
    shape, model = peer_model(run)
    length, batch, accumulation, steps = (256, 1, 1, 6) if run.small else (4096, 2, 4, 12)
    rows = run.work / "rows.jsonl"
    needs = ["trl", "peft", "datasets", "transformers"]
    peer(run, "trl", needs, "trl", f"trl.{shape}", model, rows, length, batch, accumulation, steps)


# --------------------------------------------------------------------------------------------------

PARTS = {  # name: (what, seconds that it must have left, only in full size)
    "machine": (part_machine, 5, False),
    "tests": (part_tests, 20, False),
    "ops": (part_ops, 20, False),
    "train": (part_train_small, 30, False),
    "serve": (part_serve_small, 20, False),
    "profile": (part_profile, 20, False),
    "train-8b": (part_train_8b, 90, True),
    "profile-8b": (part_profile_8b, 30, True),
    "serve-8b": (part_serve_8b, 30, True),
    "generate": (part_generate, 20, False),
    "train-8b-fp8": (part_train_8b_fp8, 45, True),
    "trl": (part_trl, 40, False),
}


def run_part(run, name):
    part, seconds, large = PARTS[name]
    if large and run.small:
        return
    if run.left() < seconds:
        return run.note(f"SKIPPED {name}: {run.left():.0f} s are left")
    start = time.time()
    print(f"---- {name}", flush=True)
    try:
        part(run)
    except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
        run.failed = True
        run.note(f"FAILED {name}: {error}")
    run.say(f"seconds.{name}", time.time() - start, "s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny model: whether this script works")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    run = Run(parser.parse_args())
    shutil.rmtree(run.bucket, ignore_errors=True)
    for name in run.args.parts.split(","):
        run_part(run, name)
    shutil.rmtree(run.bucket, ignore_errors=True)
    text = "\n".join(run.lines) + "\n"
    (run.out / "results.txt").write_text(text)
    print("----\n" + text, end="", flush=True)
    sys.exit(run.failed)


if __name__ == "__main__":
    main()
