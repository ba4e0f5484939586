"""What is trained on, over templates of every make: the answer and its end token, never a header.

The templates are put together from the parts that real ones have. Each exists twice: as users write
it, and with `{% generation %}` around the answer, of which `transformers` makes the mask that is right.
Needs the probe (build with LORRY_TESTS) in $LORRY_BUILD or build/release.
"""

import itertools
import json
import os
import pathlib
import random
import subprocess

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
import tokenizers  # noqa: E402
from test_chat import masked_runs  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROBE = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build/release")) / "lorry_chat_probe"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "</s>"]
WORDS = ["Yes", "No", "An oxide of iron.", "Sodium chloride.", "a b\n\nc", "7", "user", "assistant said so",
         "¿Qué?", "世界 🎉", "x\n", "  indented", "<b>bold</b>", "[1/2]", "ok:"]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A byte-level BPE whose words begin with a space."""
    to = tmp_path_factory.mktemp("model")
    corpus = [f"USER: {w} ASSISTANT: {w}\n\n### Response:\n{w}</turn><turn role=\"assistant\">" for w in WORDS] * 20
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(to / "tokenizer.json"))
    (to / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}))
    assert " Yes" in [tokenizer.decode([i]) for i in range(600)]
    return to


@pytest.fixture(scope="module")
def encode(model):
    """Text, trained runs (as text) and whether an end token is trained on, as lorry sees them."""
    if not PROBE.exists():
        pytest.skip(f"no probe at {PROBE}: build the target lorry_chat_probe")
    process = subprocess.Popen([PROBE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(template, messages, **more):
        request = {"model_dir": str(model), "template": template, "messages": messages, "example": True, **more}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="module")
def reference(model):
    return transformers.AutoTokenizer.from_pretrained(model)


def conversation(*answers):
    messages = []
    for i, answer in enumerate(answers):
        messages.append({"role": "user", "content": f"Question {i}?"})
        messages.append({"role": "assistant", "content": answer})
    return messages


HEADERS = {
    "chatml": "<|im_start|>{{ m.role }}\n",
    "role and a space": "{{ m.role }}: ",
    "upper case": "{{ m.role|upper }}: ",
    "no space": "{{ m.role }}:",
    "brackets": "[{{ m.role }}]\n",
    "lines": "### {{ m.role|title }}:\n",
    "xml": '<turn role="{{ m.role }}">',
    "special": "<|{{ m.role }}|>",
    "counted": "{{ loop.index }}. {{ m.role }}: ",
    "the same for all": "- ",
}
ENDS = ["<|im_end|>", "<|im_end|>\n", "\n<|im_end|>\n\n", "</s>", " </s>", "</turn>", "\n\n", ""]
PROMPTS = ["as the header", "without its space", "none", "always", "always without its space"]


def template_of(header, end, prompt, blocks):
    """`blocks`: with `{% generation %}` around what is to be learned."""
    head = HEADERS[header]
    asked = head.replace("m.role", "'assistant'").replace("loop.index", "messages|length + 1")
    closing = end.rstrip()
    if closing == "</turn>" and prompt.startswith("always"):
        closing = ""  # words that close a turn cannot be told from the header that follows every turn
    learned = "{{ m.content }}" + closing
    begin = head
    if prompt == "without its space":  # which the model writes, then
        begin = head.rstrip()
        learned = "{{ " + json.dumps(head[len(begin):]) + " }}" + learned
    if "without" in prompt:
        asked = asked.rstrip()
    if blocks:
        learned = "{% generation %}" + learned + "{% endgeneration %}"
    # A statement would swallow the line break after it.
    text = json.dumps(end[len(closing):])
    tail = {"none": ""}.get(prompt, asked if prompt.startswith("always")
                            else "{% if add_generation_prompt %}" + asked + "{% endif %}")
    return ("{% for m in messages %}{% if m.role == 'assistant' %}" + begin + learned + "{{ " + text + " }}{% else %}"
            + head + "{{ m.content }}" + "{{ " + json.dumps(end) + " }}{% endif %}{% endfor %}" + tail)  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("header", HEADERS)
def test_the_answer_and_its_end_are_trained_on_and_no_header(encode, reference, header, prompt):
    rng = random.Random(f"{header} {prompt}")
    for end, n in itertools.product(ENDS, (1, 2, 3)):
        messages = conversation(*rng.sample(WORDS, n))
        template = template_of(header, end, prompt, False)
        got = encode(template, messages)
        want = reference.apply_chat_template(
            messages, chat_template=template_of(header, end, prompt, True), return_dict=True,
            return_assistant_tokens_mask=True)
        assert got["ids"] == list(want["input_ids"])
        want = {"ids": got["ids"], "mask": list(want["assistant_masks"])}
        # A token that holds the end of `</turn>` and the beginning of the next header is a header's.
        right = [run.removesuffix("><") if "</turn>" in end else run for run in masked_runs(reference, want)]
        assert masked_runs(reference, got) == right, (template, got["text"])
        assert got["trains_end"] == ("im_end" in end or "</s>" in end)
