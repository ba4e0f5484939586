"""lorry pretokenize, tokenize and render from outside: rows that are too long, why rows teach nothing,
what a terminal shows. The turns that masks find are held against the `{% generation %}` blocks of the
training templates that TRL brings, where TRL is there."""

import importlib.util
import json
import os
import pathlib
import pty
import random
import re
import subprocess

import pytest
from conftest import EXAMPLE_MODEL, FAILED, WRONG_USAGE, last_line
from test_chat import EXAMPLE_TOKENIZER, masked_runs, probe  # noqa: F401  (probe is a fixture)
