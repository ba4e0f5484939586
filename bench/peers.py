"""The peers, each measured in a process of its own: `peers.py WHAT ARGUMENTS`. Prints one JSON
object of figures as the last line."""

import json
import os
import pathlib
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
CORES = os.cpu_count()


def import_datasets(source, target, cache):
    """`datasets` streaming a JSONL or Parquet file into save_to_disk shards of 50,000 examples."""
    os.environ["HF_DATASETS_CACHE"] = cache
    from datasets import Dataset, load_dataset

    start, rows = time.time(), 0
    kind = "parquet" if source.endswith(".parquet") else "json"
    stream = load_dataset(kind, data_files=source, split="train", streaming=True)
    for shard, batch in enumerate(stream.batch(batch_size=50_000)):
        rows += len(batch["id"])
        Dataset.from_dict(batch).save_to_disk(f"{target}/{shard}")
    return {"seconds": time.time() - start, "rows": rows}


def template_map(source, model, cache):
    """apply_chat_template through Dataset.map on all cores, then the tokenizer on its output."""
    os.environ["HF_DATASETS_CACHE"] = cache
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = Dataset.from_list([json.loads(line) for line in open(source)])

    def render(batch):
        return {"text": tokenizer.apply_chat_template(batch["messages"], tokenize=False)}

    def encode(batch):
        return {"input_ids": tokenizer(batch["text"])["input_ids"]}

    start = time.time()
    texts = data.map(render, batched=True, num_proc=CORES, load_from_cache_file=False)
    middle = time.time()
    ids = texts.map(encode, batched=True, remove_columns=texts.column_names, load_from_cache_file=False)
    end = time.time()
    tokens = sum(map(len, ids["input_ids"]))
    return {"rows": len(data), "template": middle - start, "both": end - start, "tokens": tokens}


def encode_tokenizers(source, model):
    """HF tokenizers alone; threads by RAYON_NUM_THREADS."""
    from tokenizers import Tokenizer

    documents = open(source, "rb").read().decode().split("\0")
    start = time.time()
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    loaded = time.time()
    encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    seconds = time.time() - loaded
    return {"load": loaded - start, "seconds": seconds, "tokens": sum(len(e) for e in encodings)}


def encode_gigatoken(source, model):
    """gigatoken in the form in which it is fastest, over bytes in memory; threads by
    RAYON_NUM_THREADS."""
    import awkward
    import gigatoken

    text = open(source, "rb").read()
    start = time.time()
    tokenizer = gigatoken.Tokenizer(f"{model}/tokenizer.json")
    loaded = time.time()
    ids = tokenizer.encode_batch(gigatoken.BytesSource([text], separator=b"\0"))
    tokens = int(awkward.count(ids))
    return {"load": loaded - start, "seconds": time.time() - loaded, "tokens": tokens}


def cpu_dtype():
    """bfloat16 where the processor multiplies it; elsewhere libtorch is faster in float32."""
    import torch

    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def train_trl(source, model, steps, length, packing, out):
    """TRL's SFTTrainer with its best settings on CPU: packed without padding, no checkpointing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(CORES)
    steps, packing = int(steps), packing == "packing"
    records = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.start = time.time()

        def on_step_end(self, args, state, control, **kwargs):
            records.append((time.time() - self.start, float(state.num_input_tokens_seen)))

    config = SFTConfig(
        output_dir=out,
        per_device_train_batch_size=1 if packing else 2,
        gradient_accumulation_steps=2 if packing else 1,
        max_steps=steps,
        learning_rate=2e-4,
        lr_scheduler_type="linear",
        warmup_steps=5,
        seed=3407,
        max_length=int(length),
        packing=packing,
        bf16=cpu_dtype() == torch.bfloat16,
        use_cpu=True,
        report_to="none",
        gradient_checkpointing=False,
        save_strategy="no",
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
    )
    rows = [{"messages": json.loads(line)["messages"]} for line in open(source)]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=cpu_dtype(), attn_implementation="sdpa"),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Clock()],
        peft_config=LoraConfig(
            r=16,
            lora_alpha=16,
            target_modules="q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    seen = [tokens for _, tokens in records]
    # The first step is left out: it also warms caches up.
    return {"seconds": sum(s for s, _ in records[1:]), "tokens": seen[-1] - seen[0]}


def generate_transformers(model, new_tokens, prompt_tokens, *batches):
    """Greedy generation, one batch at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(CORES)
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=cpu_dtype())
    new_tokens, rates = int(new_tokens), {}
    for batch in map(int, batches):
        prompts = torch.randint(1000, 4000, (batch, int(prompt_tokens)))
        ask = dict(do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompts))
        weights.generate(prompts, max_new_tokens=2, min_new_tokens=2, **ask)
        start = time.time()
        weights.generate(prompts, max_new_tokens=new_tokens, min_new_tokens=new_tokens, **ask)
        rates[str(batch)] = batch * new_tokens / (time.time() - start)
    return rates


PEERS = {
    "import": import_datasets,
    "template": template_map,
    "encode": encode_tokenizers,
    "gigatoken": encode_gigatoken,
    "train": train_trl,
    "generate": generate_transformers,
}

if __name__ == "__main__":
    figures = PEERS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(figures), flush=True)
