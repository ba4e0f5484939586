#!/usr/bin/env bash
# Writes docs/cli.md from the program's own --help: tools/cli_page.sh build/release/lorry > docs/cli.md
set -euo pipefail
lorry=$1
printf '# Verbs and flags\n\nMade by tools/cli_page.sh from `lorry --help`; do not edit.\n\n'
printf '```\n'; "$lorry" --help 2>&1; printf '```\n'
for verb in $("$lorry" --help | sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
  printf '\n## %s\n\n```\n' "$verb"
  "$lorry" "$verb" --help 2>&1
  printf '```\n'
done
