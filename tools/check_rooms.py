"""Data flows one way: a room under src/ includes only itself and rooms before it.

Prints every include that goes the other way; exits 1 if there is one.
"""

import pathlib
import re
import sys

# Tests of a room obey the same order. The rooms from `engine` on belong to the program, which loads
# liblorry_engine.so on demand: they reach the rooms of the engine through the libtorch-free headers
# named here.
ROOMS = """base net store hub data jinja tokenizer chat ops model generate train serve
engine sources stages inspect cli""".split()
ENGINE_ROOMS = {"ops", "model", "generate", "train", "serve"}
LOADING_ROOMS = {"engine", "sources", "stages", "inspect", "cli"}
ENGINE_FACES = {"train/evaluate.h", "train/train.h", "train/options.h", "train/plan.h", "train/schedule.h",
                "serve/serve.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def complaint(room, file, included):
    """Why `file` may not include `included`, or None."""
    target = included.split("/")[0]
    if target not in ROOMS:
        return f"'{included}' is in no room; include by room, as \"base/result.h\""
    if ROOMS.index(target) > ROOMS.index(room):
        return f"{room} comes before {target}"
    loads_engine = room in LOADING_ROOMS and file.name != "engine_entry.cc"
    if loads_engine and target in ENGINE_ROOMS and included not in ENGINE_FACES:
        return f"{room} loads the engine on demand; only {' and '.join(sorted(ENGINE_FACES))} are free of it"
    return None


def main():
    root = pathlib.Path(__file__).resolve().parent.parent / "src"
    bad = 0
    for file in sorted(root.rglob("*")):
        if file.suffix not in {".h", ".cc", ".cu"}:
            continue
        room = file.relative_to(root).parts[0]
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            why = match and complaint(room, file, match[1])
            if why:
                print(f"src/{file.relative_to(root)}:{number}: {why}", file=sys.stderr)
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
