"""Copying to an S3 server on this machine and back: lorry beside pyarrow, rclone and, where they are on
the PATH, s5cmd and geesefs. One object of 1 GB and 1,000 of 1 MB; every client moves the same files to
a bucket of its own on one server, turn about, and the best of the rounds counts."""

import concurrent.futures
import filecmp
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

MEGABYTES = int(os.environ.get("LORRY_BENCH_STORE_MB", "1000"))
ROUNDS = int(os.environ.get("LORRY_BENCH_STORE_ROUNDS", "3"))
TASKS = ("write_big", "write_small", "read_big", "read_small")


def server_program():
    cached = pathlib.Path.home() / ".cache" / "lorry" / "bin" / "versitygw"
    for place in (os.environ.get("LORRY_VERSITYGW"), shutil.which("versitygw"), cached):
        if place and os.access(place, os.X_OK):
            return str(place)
    return None


def start_server(root):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [server_program(), "--port", address, "--access", "test", "--secret", "testtest", "-q", "posix", root]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host, port = address.split(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port)), 1).close()
            return process, "http://" + address
        except OSError:
            time.sleep(0.05)
    sys.exit("bench: versitygw did not start")


def make_files(root):
    """Bytes that do not compress, in one file and in many."""
    (root / "small").mkdir(parents=True, exist_ok=True)
    with open(root / "big", "wb") as big:
        for i in range(MEGABYTES):
            block = os.urandom(10**6)
            big.write(block)
            (root / "small" / f"{i:04d}").write_bytes(block)


def measure(command, environment):
    """Seconds, CPU seconds and peak RSS in MB of a command."""
    start = time.time()
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))}\n{errors.decode()[-2000:]}")
    return time.time() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


# ---- the clients: command lines by task --------------------------------


def lorry_commands(build, source, target, bucket):
    program = build / "lorry_store_bench"
    return {
        "write_big": [program, "put", source / "big", f"s3://{bucket}/big"],
        "write_small": [program, "put", source / "small", f"s3://{bucket}/small"],
        "read_big": [program, "get", f"s3://{bucket}/big", target / "big"],
        "read_small": [program, "get", f"s3://{bucket}/small", target / "small"],
    }


def pyarrow_commands(source, target, bucket):
    here = [sys.executable, pathlib.Path(__file__)]
    return {task: [*here, task, source, target, bucket] for task in TASKS}


def rclone_commands(endpoint, source, target, bucket):
    flags = ["--config", "/dev/null", "--s3-provider", "Other", "--s3-endpoint", endpoint, "--s3-region", "us-east-1"]
    flags += ["--s3-access-key-id", "test", "--s3-secret-access-key", "testtest", "--s3-no-check-bucket", "-q"]
    flags += ["--ignore-times"]  # else a second round copies nothing
    flags += ["--transfers", "16", "--checkers", "16", "--s3-upload-concurrency", "8", "--s3-chunk-size", "16M"]
    flags += ["--multi-thread-streams", "8"]
    remote = f":s3:{bucket}"
    return {
        "write_big": ["rclone", *flags, "copyto", source / "big", remote + "/big"],
        "write_small": ["rclone", *flags, "copy", source / "small", remote + "/small"],
        "read_big": ["rclone", *flags, "copyto", remote + "/big", target / "big"],
        "read_small": ["rclone", *flags, "copy", remote + "/small", target / "small"],
    }


def s5cmd_commands(endpoint, source, target, bucket):
    copy = ["s5cmd", "--endpoint-url", endpoint, "--log", "error", "cp"]
    return {
        "write_big": [*copy, source / "big", f"s3://{bucket}/big"],
        "write_small": [*copy, f"{source}/small/", f"s3://{bucket}/small/"],
        "read_big": [*copy, f"s3://{bucket}/big", target / "big"],
        "read_small": [*copy, f"s3://{bucket}/small/*", f"{target}/small/"],
    }


# ---- the measurement ------------------------------------------------------------------------------


def same(source, target):
    """Whether what came back is what was sent."""
    pairs = [(source / "big", target / "big")]
    pairs += [(path, target / "small" / path.name) for path in (source / "small").iterdir()]
    return all(filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def bench_store(build, say):
    if not server_program():
        print("# store: no versitygw (./dev test gets it); not measured", flush=True)
        return
    root = pathlib.Path(os.environ.get("LORRY_BENCH_STORE_DIR", "/dev/shm/lorry-bench"))
    shutil.rmtree(root, ignore_errors=True)
    source, target, served = root / "source", root / "target", root / "served"
    make_files(source)
    served.mkdir()
    server, endpoint = start_server(served)
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1"}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest"}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    environment.pop("AWS_CA_BUNDLE", None)  # an old rclone trips over it
    clients = {
        "lorry": lambda bucket: lorry_commands(build, source, target, bucket),
        "pyarrow": lambda bucket: pyarrow_commands(source, target, bucket),
    }
    if shutil.which("rclone"):
        clients["rclone"] = lambda bucket: rclone_commands(endpoint, source, target, bucket)
    if shutil.which("s5cmd"):
        clients["s5cmd"] = lambda bucket: s5cmd_commands(endpoint, source, target, bucket)
    best = {}
    try:
        for name in clients:
            (served / f"bench-{name}").mkdir()
        for _ in range(ROUNDS):
            for name, commands in clients.items():
                shutil.rmtree(target, ignore_errors=True)
                (target / "small").mkdir(parents=True)
                for task, command in commands(f"bench-{name}").items():
                    figures = measure(command, environment)
                    best.setdefault((task, name), []).append(figures)
                if not same(source, target):
                    sys.exit(f"bench: {name} did not bring back what it was given")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(root, ignore_errors=True)
    report(best, list(clients), say)


def report(best, names, say):
    gigabytes = MEGABYTES / 1000
    for task in TASKS:
        rates, cpu = {}, {}
        for name in names:
            rates[name] = max(MEGABYTES / seconds for seconds, _, _ in best[task, name])
            cpu[name] = min(used for _, used, _ in best[task, name]) / gigabytes
            say(f"store.{task}.{name}", rates[name], "MB/s")
            say(f"store.{task}.{name}.cpu", cpu[name], "s/GB")
            say(f"store.{task}.{name}.peak_rss", max(rss for _, _, rss in best[task, name]), "MB")
        others = [name for name in names if name != "lorry"]
        say(f"store.{task}.ratio", rates["lorry"] / max(rates[name] for name in others), "x")
        say(f"store.{task}.cpu_ratio", min(cpu[name] for name in others) / cpu["lorry"], "x")


def pyarrow_task(task, source, target, bucket):
    """One task with pyarrow, as a user who wants speed writes it."""
    import pyarrow.fs

    endpoint = os.environ["AWS_ENDPOINT_URL_S3"].removeprefix("http://")
    fs = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1")
    block = 8 << 20

    def put(name):
        with open(f"{source}/{name}", "rb") as data, fs.open_output_stream(f"{bucket}/{name}") as out:
            shutil.copyfileobj(data, out, block)

    def get(name):
        with fs.open_input_stream(f"{bucket}/{name}") as data, open(f"{target}/{name}", "wb") as out:
            while piece := data.read(block):
                out.write(piece)

    def get_in_parallel(name):
        file, out = fs.open_input_file(f"{bucket}/{name}"), os.open(f"{target}/{name}", os.O_CREAT | os.O_WRONLY)
        size = file.size()

        def piece(at):
            os.pwrite(out, file.read_at(min(2 * block, size - at), at), at)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(piece, range(0, size, 2 * block)))
        os.close(out)

    small = [f"small/{name}" for name in sorted(os.listdir(f"{source}/small"))]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        if task == "write_big":
            put("big")
        elif task == "write_small":
            list(pool.map(put, small))
        elif task == "read_big":
            get_in_parallel("big")
        else:
            list(pool.map(get, small))


if __name__ == "__main__":
    pyarrow_task(*sys.argv[1:])
