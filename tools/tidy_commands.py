"""Writes <build>/tidy/compile_commands.json: the build's commands without g++'s precompiled headers.

clang-tidy cannot read what g++ precompiled; it includes the header's text instead.
"""

import json
import pathlib
import re
import sys


def main():
    build = pathlib.Path(sys.argv[1])
    commands = json.loads((build / "compile_commands.json").read_text())
    for command in commands:
        text = re.sub(r" -Winvalid-pch| -fpch-preprocess", "", command["command"])
        command["command"] = re.sub(r"^\S*ccache ", "", text)
    target = build / "tidy"
    target.mkdir(exist_ok=True)
    (target / "compile_commands.json").write_text(json.dumps(commands))
    print(target)


if __name__ == "__main__":
    main()
