"""pack.py BUILD FOLDER: makes one folder that measures lorry on a bare machine with a GPU, where its
run.sh is all that is called. `./dev gpu-pack` builds first. The machine needs python3 with torch 2.11
on a Debian or Ubuntu of this one's age or younger; the other libraries go along."""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import inputs  # noqa: E402

MOST_BYTES = 60_000_000
PROGRAMS = ["lorry", "lorry_ops_test", "lorry_ops_bench"]
LIBRARIES = ["liblorry_engine.so", "liblorry_cuda.so"]
# Modules that a test sees refused.
WRONG = [f"liblorry_{name}.so" for name in ("wrong_version", "wrong_torch", "wrong_size", "no_module")]
# Every distribution's own: glibc, and what libtorch itself takes from the system.
FROM_THE_SYSTEM = r"ld-linux|lib(c|m|dl|rt|util|pthread|stdc\+\+|gcc_s|gomp)\.so"


def needed(program):
    """Paths of the libraries that a program loads, but for the system's and those of the machine's
    torch."""
    out = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return {
        pathlib.Path(path)
        for path in re.findall(r"=> (/\S+)", out)
        if not re.match(FROM_THE_SYSTEM, pathlib.Path(path).name)
        and not {"torch", "nvidia"} & set(pathlib.Path(path).resolve().parts)
    }


def stripped(path, work):
    copy = work / path.name
    shutil.copy(path, copy)
    subprocess.run(["strip", "--strip-unneeded", copy], check=True)
    return copy


def rows():
    """Conversations, some 9,000 where the larger samples are here."""
    found = []
    alpaca = inputs.SHARED / "data" / "llama-factory" / "alpaca_en_demo.json"
    gsm8k = inputs.SHARED / "data" / "gsm8k" / "train.jsonl"
    if alpaca.exists() and gsm8k.exists():
        found = inputs.alpaca_conversations(alpaca)
        for line in gsm8k.read_text().splitlines():
            row = json.loads(line)
            pairs = (("user", row["question"]), ("assistant", row["answer"]))
            found.append([{"role": role, "content": text} for role, text in pairs])
    else:
        found = inputs.alpaca_conversations(inputs.ROOT / "examples" / "data" / "identity.jsonl") * 20
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in found).encode()


def members(build, work):
    """(name in the archive, path) of everything but the rows."""
    binaries = [build / name for name in PROGRAMS + LIBRARIES + WRONG if (build / name).exists()]
    if build / "lorry" not in binaries or build / "liblorry_engine.so" not in binaries:
        sys.exit(f"{build} has no lorry with its engine; build first")
    yield from ((f"bin/{path.name}", stripped(path, work)) for path in binaries)
    libraries = {library for path in binaries for library in needed(path) if library.parent != build}
    yield from ((f"lib/{path.name}", stripped(path, work)) for path in sorted(libraries))
    yield from ((name, HERE / name) for name in ("run.py", "make_model.py", "peers.py"))
    tokenizer = inputs.write_tokenizer(work / "tokenizer")
    yield from ((f"tokenizer/{path.name}", path) for path in sorted(tokenizer.iterdir()))


def main(build, folder):
    build, folder = pathlib.Path(build), pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    with tarfile.open(folder / "lorry.tar.xz", "w:xz", preset=int(os.environ.get("LORRY_GPU_XZ", "6"))) as archive:
        for name, path in members(build, work):
            archive.add(path, name)
        text = rows()
        entry = tarfile.TarInfo("rows.jsonl")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    shutil.rmtree(work)
    shutil.copy(HERE / "run.sh", folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"more than the {MOST_BYTES / 1e6:.0f} MB that may be carried to a machine")


if __name__ == "__main__":
    main(*sys.argv[1:])
