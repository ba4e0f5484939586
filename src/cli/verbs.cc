#include "cli/command.h"

namespace lorry::cli {

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> all = {
      {"import-dataset", "bring a data set into the bucket and standardise it",
       "  lorry import-dataset data/identity.json --set name=Lorry --set author='the Lorry "
       "project'\n"
       "  lorry import-dataset 'logs/**/*.jsonl.gz' --dataset logs --columns prompt=q,completion=a",
       make_import_dataset},
      {"standardize", "raw shards into conversations (import-dataset does it unless told not to)",
       "  lorry import-dataset big.parquet --no-standardize\n"
       "  lorry standardize --dataset big --format sharegpt",
       make_standardize},
      {"import-model", "bring a model directory, as the Hub lays it out, into the bucket",
       "  lorry import-model ~/models/Qwen2.5-0.5B\n"
       "  lorry import-model ./checkpoint --model mine",
       make_import_model},
      {"pretokenize", "conversations into token ids and masks, through the model's template",
       "  lorry pretokenize --dataset identity --model demo", make_pretokenize},
      {"train", "fine-tune: LoRA (or --full) over every shard, then merge",
       "  lorry train --dataset identity --model demo --epochs 3 --learning-rate 1e-3\n"
       "  lorry train --max-steps 20 --no-shuffle --no-packing --adapter ./start",
       make_train},
      {"run", "all stages from the sources to the merged model, skipping what is done",
       "  lorry run data/identity.json ~/models/demo --set name=Lorry --epochs 3", make_run},
      {"serve", "answer OpenAI-compatible requests with the fine-tuned model",
       "  lorry serve --port 8080\n"
       "  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
       "    -d '{\"model\": \"demo/identity\", \"messages\": [{\"role\": \"user\", \"content\": "
       "\"Who are you?\"}]}'",
       make_serve},
      {"chat", "talk to the fine-tuned model in the terminal",
       "  lorry chat\n"
       "  lorry chat --base --prompt 'Who are you?'",
       make_chat},
      {"eval", "loss, perplexity and greedy answers of the base and the fine-tuned model",
       "  lorry eval --dataset identity --model demo --generate 3\n"
       "  lorry eval --dataset heldout --trained-on identity --max-rows 1000 --json",
       make_eval},
      {"status", "what the bucket holds, what is done, what is left",
       "  lorry status\n"
       "  lorry status --json | jq '.runs[] | select(.train != \"done\")'",
       make_status},
      {"plan", "rows, tokens, steps, bytes, memory, hours and costs, before anything is bought",
       "  lorry plan --dataset identity --model demo --epochs 3\n"
       "  lorry plan --device cuda --packing --max-length 8192\n"
       "  lorry plan --prices L4=0.80,H100=2.50\n"
       "  lorry plan --gpu L4 --tokens-per-second 5200",
       make_plan},
      {"verify", "compare every file in the bucket with the checksum it was written with",
       "  lorry verify\n"
       "  lorry verify --dataset identity --repair && lorry pretokenize --dataset identity",
       make_verify},
      {"doctor", "what this machine has, and what to do about what is missing",
       "  lorry doctor --bucket s3://mybucket\n"
       "  lorry doctor --device cuda && lorry run",
       make_doctor},
      {"render", "one example as text, as the model will see it",
       "  lorry render --dataset identity --row 3\n"
       "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | lorry render --messages -",
       make_render},
      {"tokenize", "one example as tokens: ids, pieces, and which are trained on",
       "  lorry tokenize --dataset identity --row 3\n"
       "  lorry tokenize --text 'Hello there'",
       make_tokenize},
  };
  return all;
}

}  // namespace lorry::cli
