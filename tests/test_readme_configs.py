"""Directories whose README.md says which files are which, as `datasets` reads them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")

ROOT = Path(__file__).resolve().parent.parent
LORRY = Path(os.environ.get("LORRY_BUILD", ROOT / "build" / "release")) / "lorry"
datasets.disable_progress_bars()

CONFIGS = """configs:
- config_name: c
  data_files:
  - split: train
    path: b.jsonl
  - split: test
    path: a.jsonl
"""
CARDS = {
    "plain": f"---\n{CONFIGS}---\n# text\n",
    "byte order mark": f"\ufeff---\n{CONFIGS}---\n",
    "blanks after the fence": f"---\n{CONFIGS}--- \t\n# text\n",
    "CRLF": f"---\n{CONFIGS}---\n".replace("\n", "\r\n"),
    "key twice": f"---\nlicense: mit\nlicense: apache-2.0\nconfigs: 3\n{CONFIGS}---\n",
}


def run_import(tmp_path, *flags):
    return subprocess.run([LORRY, "import-dataset", tmp_path / "d", "--bucket", tmp_path / "b",
                           "--dataset", "ds", *flags], capture_output=True, text=True)


def write(tmp_path, card):
    (tmp_path / "d").mkdir()
    for name in "ab":
        row = {"prompt": name, "completion": "x"}
        (tmp_path / "d" / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "d" / "README.md").write_bytes(card.encode())


@pytest.mark.parametrize("flags", [[], ["--split", "train"], ["--config", "c"]])
@pytest.mark.parametrize("name", CARDS)
def test_a_directory_has_the_split_that_its_readme_names(tmp_path, name, flags):
    write(tmp_path, CARDS[name])
    done = run_import(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    got = list(datasets.load_from_disk(str(tmp_path / "b" / "raw" / "ds" / "0")))
    want = list(datasets.load_dataset(str(tmp_path / "d"), split="train",
                                      cache_dir=str(tmp_path / "cache")))
    assert got == want == [{"prompt": "b", "completion": "x"}]


def test_a_readme_without_configs_changes_nothing(tmp_path):
    write(tmp_path, "---\nlicense: mit\n---\n# text\n")
    assert run_import(tmp_path).returncode == 0
    assert len(datasets.load_from_disk(str(tmp_path / "b" / "raw" / "ds" / "0"))) == 2


def test_parameters_that_are_not_followed_are_refused_by_name(tmp_path):
    write(tmp_path, f"---\n{CONFIGS}  sep: ;\n  skiprows: 1\n---\n")
    done = run_import(tmp_path)
    assert done.returncode != 0 and "sep, skiprows" in done.stderr, done.stderr
    assert "config c" in done.stderr and not (tmp_path / "b" / "raw").exists()


def test_what_types_a_csv_file_does_no_harm(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.csv").write_text("prompt,completion\nzip?,00501\nx,NA\n")
    (tmp_path / "d" / "README.md").write_text(
        "---\nconfigs:\n- config_name: c\n  data_files: a.csv\n  dtype: str\n"
        "  keep_default_na: false\n---\n")
    assert run_import(tmp_path).returncode == 0
    rows = datasets.load_from_disk(str(tmp_path / "b" / "raw" / "ds" / "0"))
    assert rows["completion"][:] == ["00501", "NA"]
