"""Counts what one run of ./dev test did, over both kinds of test.

Reads the JUnit files of a results directory: ctest.xml, one <program>.xml of GoogleTest a program,
and pytest.xml. Prints `N passed, N failed[, N skipped]`; exits 1 if anything failed or nothing ran.
A program that ctest ran and that left no file, or ended badly though each of its tests passed, is
one failure more.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    """'passed', 'failed' or 'skipped' of one <testcase> of GoogleTest or pytest."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.find("skipped") is not None or case.get("result") == "skipped":
        return "skipped"
    if case.get("status") == "notrun":  # left out by a filter, or disabled
        return None
    return "passed"


def count_file(path):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ElementTree.parse(path).iter("testcase"):
        kind = outcome(case)
        if kind:
            counts[kind] += 1
    return counts


def failed_programs(results):
    """Names of programs that ctest saw fail."""
    path = results / "ctest.xml"
    if not path.exists():
        return []
    cases = ElementTree.parse(path).iter("testcase")
    return [case.get("name") for case in cases if case.get("status") == "fail"]


def main():
    results = pathlib.Path(sys.argv[1])
    total = {"passed": 0, "failed": 0, "skipped": 0}
    by_program = {}
    for path in sorted(results.glob("*.xml")):
        if path.name == "ctest.xml":
            continue
        try:
            by_program[path.stem] = count_file(path)
        except ElementTree.ParseError:
            by_program[path.stem] = {"passed": 0, "failed": 1, "skipped": 0}
    for counts in by_program.values():
        for kind, number in counts.items():
            total[kind] += number
    for name in failed_programs(results):
        if by_program.get(f"lorry_{name}_test", {}).get("failed", 0) == 0:
            print(f"{name}: the test program crashed or ended badly", file=sys.stderr)
            total["failed"] += 1
    if not (results / "ctest.xml").exists() or "pytest" not in by_program:
        print("ctest or pytest did not finish", file=sys.stderr)
        total["failed"] += 1
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
