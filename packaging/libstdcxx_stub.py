"""Makes a libstdc++.so.6 to link against that offers only what GCC 8's had.

    python3 libstdcxx_stub.py libstdc++.so.6 OUT

A symbol that came later is not in it, so that the linker takes it from libstdc++.a instead; of one
that has several versions it has the newest old enough. It holds no code.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# What manylinux_2_28 promises.
NEWEST = {"GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}
SECTION = {"FUNC": ("function", ".text"), "IFUNC": ("function", ".text"), "OBJECT": ("object", ".data"),
           "TLS": ("tls_object", '.tdata,"awT",@progbits')}


def number(version: str) -> tuple[str, tuple[int, ...]]:
    """GLIBCXX_3.4.11 -> ("GLIBCXX", (3, 4, 11))."""
    family, _, digits = version.rpartition("_")
    return family, tuple(map(int, digits.split("."))) if re.fullmatch(r"[\d.]+", digits) else ()


def old_enough(version: str) -> bool:
    family, digits = number(version)
    return digits != () and digits <= NEWEST.get(family, ())


def symbols(library: str) -> dict[str, tuple[str, str, int]]:
    """Name -> (version, kind, size) of what the library defines."""
    listing = subprocess.run(["readelf", "--dyn-syms", "-W", library], check=True, capture_output=True, text=True).stdout
    found: dict[str, tuple[str, str, int]] = {}
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[6] == "UND" or "@" not in fields[7] or fields[3] not in SECTION:
            continue
        name, version = re.split("@+", fields[7])
        known = found.get(name)
        if old_enough(version) and (known is None or number(known[0]) < number(version)):
            found[name] = (version, fields[3], int(fields[2], 0))
    return found


def assembly(found: dict[str, tuple[str, str, int]]) -> str:
    lines = []
    for name, (_, kind, size) in sorted(found.items()):
        what, section = SECTION[kind]
        lines += [f".section {section}", ".balign 32", f".globl {name}", f".type {name},@{what}",
                  f".size {name},{max(size, 1)}", f"{name}: .skip {max(size, 1) if kind != 'FUNC' else 1}"]
    return "\n".join(lines) + '\n.section .note.GNU-stack,"",@progbits\n'


def version_script(found: dict[str, tuple[str, str, int]]) -> str:
    nodes = defaultdict(list)
    for name, (version, _, _) in sorted(found.items()):
        nodes[version].append(name)
    script = "\n".join(f"{version} {{ {'; '.join(names)}; }};" for version, names in sorted(nodes.items()))
    return script + "\nLORRY_STUB { local: *; };\n"


def main() -> None:
    found, out = symbols(sys.argv[1]), Path(sys.argv[2])
    source, script = out.with_suffix(".s"), out.with_suffix(".map")
    source.write_text(assembly(found))
    script.write_text(version_script(found))
    subprocess.run(["gcc", "-shared", "-nostdlib", "-fuse-ld=bfd", "-Wl,-soname,libstdc++.so.6",
                    f"-Wl,--version-script={script}", "-o", out, source], check=True)


if __name__ == "__main__":
    main()
