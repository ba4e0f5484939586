"""Writes <build>/tidy/compile_commands.json: the build's commands as clang-tidy can use them.

clang reads no header that g++ precompiled, and refuses to start where one lies beside the header's
text; the commands get a copy of the text that has none beside it.
"""

import hashlib
import json
import pathlib
import re
import sys


def plain_copy(match, target):
    """` -include` of a copy of the precompiled header's text."""
    text = pathlib.Path(match[1]).read_text() if pathlib.Path(match[1]).exists() else ""
    copy = target / f"{hashlib.sha256(match[1].encode()).hexdigest()[:12]}.hxx"
    copy.write_text(text)
    return f" -include {copy}"


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    target = build / "tidy"
    target.mkdir(exist_ok=True)
    commands = json.loads((build / "compile_commands.json").read_text())
    for command in commands:
        text = re.sub(r" -Winvalid-pch", "", command["command"])
        text = re.sub(r" -include (\S+cmake_pch\.hxx)", lambda m: plain_copy(m, target), text)
        command["command"] = re.sub(r"^\S*ccache ", "", text)
    (target / "compile_commands.json").write_text(json.dumps(commands))


if __name__ == "__main__":
    main()
