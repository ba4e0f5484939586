"""Models that several ranks hold together: every family beside `transformers`, adapters beside `peft`,
and a server beside one that holds the model whole. The ranks are threads on the CPU."""

import concurrent.futures

import pytest
from checkpoints import PROBE, assert_close, make_adapter, probe, reference, run_probe
from conftest import import_example, on
from test_families import FIRST, MODELS, TARGETS, save

pytestmark = pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built")

NORM_OVER_HEADS = ("Olmo2", "Olmo3")
DIVISIBLE = [name for name, (family, _) in MODELS.items() if family not in NORM_OVER_HEADS]
FIRST_DIVISIBLE = [family for family in FIRST if family not in NORM_OVER_HEADS]
PROMPTS = ["Who are you?", "What is your name?", "Tell me about the sea.", "def add(a, b):"]


@pytest.mark.parametrize("name", DIVISIBLE)
def test_two_ranks_have_the_logits_of_one(tmp_path, name):
    model = save(name, tmp_path)
    assert_close(probe(tmp_path, ranks=2), reference(model))


@pytest.mark.parametrize("family", FIRST_DIVISIBLE)
def test_key_heads_are_shared_where_there_are_more_ranks(tmp_path, family):
    model = save(FIRST[family], tmp_path)
    assert_close(probe(tmp_path, ranks=4), reference(model))


@pytest.mark.parametrize("family", FIRST_DIVISIBLE)
def test_adapters_are_divided_with_the_model(tmp_path, family):
    model = save(FIRST[family], tmp_path)
    adapted = make_adapter(model, tmp_path / "adapter", target_modules=TARGETS.get(family, "all-linear"))
    assert_close(probe(tmp_path, adapters=["adapter"], ranks=2), reference(adapted))


def refusal(directory, **request):
    done = run_probe(directory, output="logits.safetensors", dtype="float32", sequences=[[1, 2]], **request)
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_a_model_that_cannot_be_divided_is_refused_by_name(tmp_path):
    save("olmo2", tmp_path)
    assert "Olmo2ForCausalLM normalises queries over all heads" in refusal(tmp_path, ranks=2)


def test_ranks_that_do_not_divide_the_heads_are_refused(tmp_path):
    save("phi3", tmp_path)
    words = "--tensor-parallel-size 3 does not divide the model's 4 attention heads"
    assert words in refusal(tmp_path, ranks=3)


def test_an_adapter_with_dora_is_refused(tmp_path):
    model = save("phi3", tmp_path)
    make_adapter(model, tmp_path / "adapter", use_dora=True)
    assert "use_dora" in refusal(tmp_path, ranks=2, adapters=["adapter"])


@pytest.fixture(scope="module")
def bucket(lorry, tmp_path_factory):
    """The example model, and what a few steps made of it."""
    bucket = tmp_path_factory.mktemp("parallel")
    import_example(lorry, bucket)
    lorry("pretokenize", *on(bucket))
    lorry("train", *on(bucket), "--max-steps", 6, "--learning-rate", "5e-3")
    return bucket


def answers(server):
    """Of the base model and of the fine-tuned one to all prompts at once."""
    asked = [(model, prompt) for prompt in PROMPTS for model in ("demo", "demo/identity")]
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda each: server.answer(*each, max_tokens=40), asked))


def test_a_server_of_two_ranks_answers_as_one(bucket, serve):
    flags = (*on(bucket), "--dtype", "float32", "--device", "cpu")
    with serve(*flags) as one:
        expected = answers(one)
    with serve(*flags, "--tensor-parallel-size", "2") as two:
        assert answers(two) == expected
    assert expected[0::2] != expected[1::2]


def test_a_server_says_that_the_ranks_do_not_divide_the_model(bucket, lorry):
    flags = (*on(bucket), "--device", "cpu", "--tensor-parallel-size", "3")
    assert "does not divide the model's 8 attention heads" in lorry("serve", *flags, code=2).stderr
