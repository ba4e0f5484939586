#!/usr/bin/env bash
# Writes docs/cli.md from the program's own --help: tools/cli_page.sh build/release/lorry > docs/cli.md
set -euo pipefail
lorry=$1
printf '# Verbs and flags\n\nMade by tools/cli_page.sh from `lorry --help`; do not edit.\n\n'
printf '```\n'; "$lorry" --help 2>&1; printf '```\n'
for verb in import-dataset standardize import-model pretokenize train serve chat run status render tokenize; do
  printf '\n## %s\n\n```\n' "$verb"
  "$lorry" "$verb" --help 2>&1
  printf '```\n'
done
