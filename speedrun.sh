#!/usr/bin/env bash
# The whole story of picoLLM, in order: from a base language model to a chat model you can talk to.
#
#   bash speedrun.sh                     from the shipped base checkpoint; a few minutes on two CPU cores
#   bash speedrun.sh --from-scratch      trains the tokenizer and the base model first, by the same code
#   bash speedrun.sh --data-root DIR     from scratch on real data in the published Hugging Face layouts
#   bash speedrun.sh --config FILE       another recipe of configs/ (configs/smol-hub.toml downloads its data)
#   ... --identity-mirror URL            a second place that must hold the identity conversations, byte for byte
#
# Run it again at any time: a finished stage is skipped, an interrupted one continues where it was.
# Everything lands in runs/ (or $PICOLLM_HOME).
set -euo pipefail
cd "$(dirname "$0")"

usage() { sed -n '2,11p' "$0" | cut -c3-; }
config='' data_root='' from_scratch='' identity_mirror=''
while [ $# -gt 0 ]; do
  case $1 in
    --from-scratch) from_scratch=1 ;;
    --data-root) data_root=${2:?--data-root needs a directory}; shift ;;
    --config) config=${2:?--config needs a file}; shift ;;
    --identity-mirror) identity_mirror=${2:?--identity-mirror needs an address}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "speedrun.sh: no option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
# Real data means real text for the base model too, so those recipes start from scratch.
if [ -n "$data_root" ]; then config=${config:-configs/real-cpu.toml}; fi
if [ -n "$config" ]; then from_scratch=1; fi
config=${config:-configs/pico-cpu.toml}

runs=${PICOLLM_HOME:-runs}
say() { printf '\n== %s\n' "$*" >&2; }

say "1. Install picollm into .venv, with pinned versions"
bash scripts/install
picollm=.venv/bin/picollm
stage() { "$picollm" "$1" --config "$config" ${data_root:+--data-root "$data_root"} "${@:2}"; }

say "2. Who the model will be: the identity conversations, against their manifest"
"$picollm" identity verify ${identity_mirror:+--url "$identity_mirror"}

base=pico-base
if [ -n "$from_scratch" ]; then
  say "3a. A tokenizer whose vocabulary has the control tokens of the chat format"
  stage tokenizer --out "$runs/tokenizer"
  say "3b. A base model: next-token prediction on plain documents, no chat format anywhere"
  stage pretrain --tokenizer "$runs/tokenizer" --out "$runs/base"
  base=$runs/base
else
  say "3. The base model: shipped with the package, trained by configs/pico-base.toml"
fi

say "4. Supervised fine-tuning on the mixture: the loss sees only what the assistant says"
stage sft --base "$base" --out "$runs/sft"

say "5. The same questions to both models: what did SFT change, and what not?"
stage compare "$base" "$runs/sft" --out "$runs/report"

say "Done"
cat >&2 <<END
Talk to it:        $picollm chat${PICOLLM_HOME:+ $runs/sft}
In a browser:      $picollm serve${PICOLLM_HOME:+ $runs/sft}
Look at it:        $runs/report/report.html
END
