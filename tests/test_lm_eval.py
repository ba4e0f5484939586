"""Scores of lm-evaluation-harness through `lorry serve`, beside its own with `transformers` on the same checkpoint."""

import json

import lm_eval
import pytest
from conftest import EXAMPLE_MODEL, example_server
from lm_eval.tasks import TaskManager

CHOICES = [
    {"question": "What is 2+2?", "choices": ["4", "22", "a cat"], "answer": 0},
    {"question": "Which of them is an animal?", "choices": ["table", "dog", "Tuesday"], "answer": 1},
    {"question": "Wie heißt die Hauptstadt? 你好 🙂", "choices": ["Köln", "東京", "Zürich 🙂"], "answer": 2},
    {"question": "Who are you?", "choices": ["An assistant.", "Nobody at all"], "answer": 0},
]
TEXTS = [
    {"text": "The sky is blue today, and the river runs to the sea.\n\nNothing else happened."},
    {"text": " ".join(f"Sentence number {i} says that {i} plus one is {i + 1}." for i in range(12))},
    {"text": "Grüße 🙂 你好, wie geht's?"},
]
CHOICE_TASK = """
task: made_up_choices
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
PERPLEXITY_TASK = """
task: made_up_texts
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
WINDOW = 96  # tokens: the longest text takes several


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A directory with both tasks."""
    directory = tmp_path_factory.mktemp("tasks")
    for name, rows, task in (("choices", CHOICES, CHOICE_TASK), ("texts", TEXTS, PERPLEXITY_TASK)):
        file = directory / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        kwargs = {"data_files": {"test": str(file)}, "cache_dir": str(directory / "cache")}
        data = f"dataset_path: json\ndataset_kwargs: {json.dumps(kwargs)}\ntest_split: test\n"
        (directory / f"{name}.yaml").write_text(task + data)
    return directory


@pytest.fixture(scope="module")
def evaluate(tasks):
    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def run(model, /, **args):
        return lm_eval.simple_evaluate(
            model=model,
            model_args=args,
            tasks=["made_up_choices", "made_up_texts"],
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
        )

    return run


@pytest.fixture(scope="module")
def reference(evaluate):
    """lm_eval keeps two tokens of a served model's window for the answer."""
    return evaluate("hf", pretrained=str(EXAMPLE_MODEL), dtype="float32", device="cpu", max_length=WINDOW - 2)


@pytest.fixture(scope="module")
def server(lorry, serve, tmp_path_factory):
    with example_server(lorry, serve, tmp_path_factory.mktemp("lm_eval"), "m") as running:
        yield running


@pytest.fixture(params=[True, False], ids=["as ids", "as text"])
def results(request, evaluate, server):
    return evaluate(
        "local-completions",
        model="m",
        base_url=server.url + "/v1/completions",
        tokenizer=str(EXAMPLE_MODEL),
        tokenizer_backend="huggingface",
        tokenized_requests=request.param,
        num_concurrent=2,
        max_length=WINDOW,
    )


def samples(results, task):
    return sorted(results["samples"][task], key=lambda sample: sample["doc_id"])


def test_every_score_is_that_of_transformers(results, reference):
    for task, rows in (("made_up_choices", CHOICES), ("made_up_texts", TEXTS)):
        ours, theirs = samples(results, task), samples(reference, task)
        assert len(ours) == len(theirs) == len(rows)
        for mine, wanted in zip(ours, theirs):
            assert mine["doc"] == wanted["doc"]
            for got, want in zip(mine["filtered_resps"], wanted["filtered_resps"]):
                if task == "made_up_texts":
                    assert got == pytest.approx(want, abs=1e-3)
                    continue
                assert got[0] == pytest.approx(want[0], abs=1e-3)
                assert got[1] == want[1]  # whether it is the greedy answer


def test_the_metrics_are_those_of_transformers(results, reference):
    for task, metrics in reference["results"].items():
        numbers = {k: v for k, v in metrics.items() if isinstance(v, float) and "stderr" not in k}
        assert numbers
        for name, wanted in numbers.items():
            assert results["results"][task][name] == pytest.approx(wanted, rel=1e-4), name
