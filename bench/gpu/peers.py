"""The peers on one GPU, each in a process of its own. Prints `PEER name value unit`.

    peers.py generate NAME MODEL NEW_TOKENS STREAMS... DEVICE
    peers.py trl NAME MODEL ROWS LENGTH BATCH ACCUMULATION STEPS DEVICE
"""

import importlib.util
import json
import random
import sys
import tempfile
import time

import torch

WORDS = "river stone window market garden silver engine letter bridge paper forest music".split()


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def generate(name, model, new_tokens, *rest):
    """transformers' generate, one static batch for each number of streams."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    *streams, device = rest
    tokenizer, new_tokens = AutoTokenizer.from_pretrained(model), int(new_tokens)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa")
    net = net.to(device).eval()
    for count in map(int, streams):
        texts = [" ".join(random.choices(WORDS, k=50)) for _ in range(count)]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        batch = torch.tensor([row[: min(map(len, ids))] for row in ids], device=device)
        settings = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(batch)}
        with torch.no_grad():
            net.generate(batch, max_new_tokens=4, **settings)
            wait(device)
            start = time.time()
            net.generate(batch, max_new_tokens=new_tokens, min_new_tokens=new_tokens, **settings)
            wait(device)
        print(f"PEER {name}.{count}.rate {count * new_tokens / (time.time() - start):.1f} tokens/s", flush=True)


def trl(name, model, rows, length, batch, accumulation, steps, device):
    """TRL's SFTTrainer over packed rows, Liger's kernels where they are installed."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    length, batch, accumulation, steps = map(int, (length, batch, accumulation, steps))
    needed = (steps + 2) * batch * accumulation * (length // 180 + 1)
    with open(rows) as file:
        data = Dataset.from_list([json.loads(line) for line, _ in zip(file, range(needed))])
    records = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            wait(device)
            self.start = time.time()

        def on_step_end(self, args, state, control, **kwargs):
            wait(device)
            records.append((time.time() - self.start, float(state.num_input_tokens_seen)))

    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        learning_rate=2e-4,
        max_length=length,
        packing=True,
        bf16=True,
        use_cpu=device == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        use_liger_kernel=device == "cuda" and importlib.util.find_spec("liger_kernel") is not None,
        include_num_input_tokens_seen="non_padding",
    )
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa")
    lora = LoraConfig(
        r=16,
        lora_alpha=16,
        target_modules="q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(),
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=net.to(device),
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Clock()],
        peft_config=lora,
    )
    trainer.train()
    first = min(4, steps // 2)
    tokens = records[-1][1] - records[first - 1][1]
    print(f"PEER {name}.rate {tokens / sum(s for s, _ in records[first:]):.1f} tokens/s", flush=True)


if __name__ == "__main__":
    {"generate": generate, "trl": trl}[sys.argv[1]](*sys.argv[2:])
