"""Ids and decoded text beside `transformers`, for real tokenizers and for trained variants.

Needs lorry_tokenizer_probe (a build with LORRY_TESTS) in $LORRY_BUILD or build/release. Real tokenizers
and data are read from the folder beside the checkout ($LORRY_SHARED or ../shared), if it is there.
"""

import json
import lzma
import os
import pathlib
import random
import shutil
import subprocess

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
from tokenizers import AddedToken, Regex, Tokenizer, models, trainers  # noqa: E402
from tokenizers import decoders as D  # noqa: E402
from tokenizers import normalizers as N  # noqa: E402
from tokenizers import pre_tokenizers as P  # noqa: E402
from tokenizers import processors as PP  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROBE = pathlib.Path(os.environ.get("LORRY_BUILD", ROOT / "build/release")) / "lorry_tokenizer_probe"
SHARED = pathlib.Path(os.environ.get("LORRY_SHARED", ROOT.parent / "shared"))
REAL = ("deepseek_v3", "gpt2", "mistral_nemo", "qwen2_5", "qwen3", "demo")

HAND_PICKED = [
    "", " ", "  ", "\n", "a", " a", "\u0130İ", "\ufeffx", "\u0085\u180e\u200b \u3000",
    "🧑‍👩‍👧‍👦🏳️‍🌈", "שלום עולם مرحبا", "e\u0301\u0323 o\u0308", "한국어 각 \u1100\u1161\u11a8", "ẛ̣ ﬁ ①",
    "\u0958\u09cb\u0b94", "I'LL we'Ve it'ſ x'S 's't", "\r\n\r\n \r\n\t\t\n  x", "1234567890 ١٢٣ ²½",
    "don’t", "foo_bar(baz) // x = {\"a\": [1,2]}", "    def f(x):\n        return x\n\n\n",
    "hello World", "helloWorld World-World", "Worlds", "a <l> b <r> c <lr> d", "a<l>  <l>b",
    "<r>   <lr>   <r>x", "foo bar Foo Bar   baz", "zz zzz _zz zz. ézz", "<|x|>y<|x|>",
    "e\u0301 é É", "     x", "A Ａ a", "x\u00a0<l>\u3000<r>\u2003y",
]  # fmt: skip


def random_texts(n, seed):
    """Code points of all planes, bytes read with errors=replace, and what patterns turn on."""
    r = random.Random(seed)

    def character():
        limit = r.choice([0x110000, 0x20000, 0x3000, 0x300])
        c = r.choice([r.randrange(limit), r.choice([0x301, 0x323, 0x345, 0x200D, 0x20, 0xA, 0x1161])])
        return chr(c) if not 0xD800 <= c < 0xE000 else "\n"

    knots = [" ", "  ", "\n", "\t", "a", "B", "'s", "1", ".", "\r", "é", "中", "!", "_", "\u00a0"]
    out = ["".join(character() for _ in range(r.randrange(1, 60))) for _ in range(n)]
    out += [r.randbytes(r.randrange(1, 80)).decode("utf-8", "replace") for _ in range(n)]
    out += ["".join(r.choice(knots) for _ in range(r.randrange(1, 40))) for _ in range(n)]
    return out


def files_of_this_project():
    return [p.read_text()[:4000] for p in sorted((ROOT / "src/tokenizer").glob("*.cc"))[:12]]


def samples_of_data(n):
    if not SHARED.is_dir():
        return []
    out = []
    for path in sorted((SHARED / "data").rglob("*.json*")):
        text = path.read_text(encoding="utf-8")
        try:
            rows = json.loads(text)
        except ValueError:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        for row in random.Random(1).sample(rows, min(n, len(rows))):
            out.append(json.dumps(row, ensure_ascii=False))
            out += [v for v in row.values() if isinstance(v, str)]
    return out


def ask(directory, requests):
    if not PROBE.exists():
        pytest.skip(f"no probe at {PROBE}: build the target lorry_tokenizer_probe")
    lines = "".join(json.dumps(q) + "\n" for q in requests)
    done = subprocess.run([PROBE, directory], input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *answers = done.stdout.split("\n")[:-1]
    return json.loads(header), [json.loads(a) for a in answers]


def compare(directory, texts, n_random_ids=150):
    """Every id of every text, and decoding of what came out and of random ids."""
    peer = transformers.AutoTokenizer.from_pretrained(directory)
    r = random.Random(3)
    added = [t.content for t in peer.added_tokens_decoder.values()]
    texts = list(texts)
    for _ in range(120 if added else 0):  # added tokens inside of text
        bits = [r.choice(added), r.choice(added)[:-1], " ", "  ", "\n", "hello", " Hello", "x", "7"]
        texts.append("".join(r.choice(bits) for _ in range(r.randrange(1, 9))))
    requests, wanted = [], []
    for i, text in enumerate(texts):
        for special in (True, False) if i % 5 == 0 else (i % 2 == 0,):
            requests.append({"text": text, "special": special})
            wanted.append(peer(text, add_special_tokens=special)["input_ids"])
    runs = wanted[:400] + [
        [r.randrange(len(peer) + 3) for _ in range(r.randrange(30))] for _ in range(n_random_ids)
    ]
    for ids in runs:
        for skip in (True, False):
            requests.append({"ids": ids, "skip": skip})
            wanted.append(
                peer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            )
    header, answers = ask(directory, requests)
    assert header["special_tokens_map"] == dict(peer.special_tokens_map)
    assert header["vocab_size"] == max(peer.get_vocab().values()) + 1
    for request, want, got in zip(requests, wanted, answers, strict=True):
        if "ids" in request:
            assert (got["text"], got["stream"]) == (want, want), request
        else:
            assert got["ids"] == want, request
            assert got["same"] and len(got["offsets"]) == len(want), request


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: set LORRY_SHARED to the folder with tokenizers/ and models/")

    def unpack(name):
        source = SHARED / ("models" if name == "demo" else "tokenizers") / name
        directory = tmp_path_factory.mktemp(name)
        for path in source.iterdir():
            if path.suffix == ".xz":
                (directory / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
            elif path.suffix in (".json", ".jinja"):
                shutil.copyfile(path, directory / path.name)
        return directory

    return unpack


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_give_the_same_ids_and_text(real, name):
    texts = HAND_PICKED + random_texts(100, 1) + files_of_this_project() + samples_of_data(60)
    compare(real(name), texts)


@pytest.mark.parametrize("name", ("gpt2", "qwen2_5"))
def test_every_code_point_gives_the_same_ids(real, name):
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["a".join(points[i : i + 500]) for i in range(0, len(points), 500)]
    texts += [" ".join(points[i : i + 500]) for i in range(0, 0x20000, 500)]
    compare(real(name), texts, n_random_ids=0)


@pytest.mark.parametrize("name", ("gpt2", "qwen2_5", "deepseek_v3", "mistral_nemo"))
def test_a_megabyte_of_one_character_gives_the_same_ids(real, name):
    directory = real(name)
    peer = transformers.AutoTokenizer.from_pretrained(directory)
    texts = [c * (1 << 20) for c in "a \n"]
    _, answers = ask(directory, [{"text": t, "special": False} for t in texts])
    for text, answer in zip(texts, answers, strict=True):
        assert answer["ids"] == peer(text, add_special_tokens=False)["input_ids"]


def split(pattern, behavior="isolated", invert=False):
    return P.Split(Regex(pattern), behavior, invert)


def byte_level(prefix=False, use_regex=True):
    return P.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


QWEN_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + QWEN_TAIL
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{ENDINGS}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{ENDINGS}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
ODD = (
    r"(?<=[a-z])(?=[A-Z])|(?<!\d)\d{2,3}?|\b(?:foo|bar)+\b|(?:ab|a)*?c|^\s*$|[[:punct:]&&[^_]]{1,2}+|"
    r"[\p{Han}]+|[\p{Lo}&&[^\p{Han}]]+"
)
BOS = PP.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
BOTH = PP.TemplateProcessing("<s> $A </s>", "$A $B", [("<s>", 1), ("</s>", 2)])

# name: normalizer, pre-tokenizer, post-processor
VARIANTS = {
    "llama3": (None, [split(LLAMA3), byte_level(use_regex=False)], BOS),
    "o200k": (None, [split(O200K), byte_level(use_regex=False)], None),
    "cl100k": (None, [split(CL100K, "removed", True), byte_level(use_regex=False)], None),
    "smollm": (None, [P.Digits(True), byte_level()], None),
    "falcon": (
        None,
        [P.Punctuation("contiguous"), byte_level(), P.Digits(False), split("[0-9][0-9][0-9]")],
        PP.Sequence([PP.ByteLevel(), BOTH]),
    ),
    "nfkc": (N.NFKC(), [P.Digits(False), byte_level()], PP.RobertaProcessing(("</s>", 2), ("<s>", 1))),
    "nfd": (N.NFD(), [byte_level(True)], BOS),
    "nfkd_lowercase": (N.Sequence([N.NFKD(), N.Lowercase()]), [byte_level()], None),
    "replace": (
        N.Sequence([N.Strip(), N.Replace(Regex(r"\s{2,}"), " "), N.Replace("a", "bb"), N.Prepend("_")]),
        [byte_level()],
        BOS,
    ),
    "merged_with_previous": (None, [split(r"\s+", "merged_with_previous"), byte_level()], None),
    "merged_with_next": (N.NFC(), [P.Split(" ", "merged_with_next"), byte_level()], None),
    "contiguous": (None, [split(r"[aeiou\s]", "contiguous"), byte_level(use_regex=False)], None),
    "inverted": (None, [split(r"\w+", "merged_with_next", True), byte_level(use_regex=False)], None),
    "whitespace": (None, [P.Whitespace(), byte_level(use_regex=False)], None),
    "whitespace_split": (None, [P.WhitespaceSplit(), P.Punctuation(), byte_level(True, False)], None),
    "odd_pattern": (None, [split(ODD), byte_level(use_regex=False)], None),
}
ADDED = [
    AddedToken("<|x|>", special=True, normalized=False),
    AddedToken("<|x|>y", special=True, normalized=False),
    AddedToken("hello"),
    AddedToken("World", single_word=True),
    AddedToken("<l>", lstrip=True, special=True),
    AddedToken("<r>", rstrip=True, special=True),
    AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("é"),
    AddedToken("Foo Bar", rstrip=True),
    AddedToken("zz", single_word=True, normalized=False),
    AddedToken("Ａ"),
]


def train(directory, normalizer, steps, post_processor):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = P.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=P.ByteLevel.alphabet(),
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
        max_token_length=12,
    )
    tokenizer.train_from_iterator(files_of_this_project() + random_texts(100, 5), trainer)
    tokenizer.decoder = D.ByteLevel()
    if post_processor:
        tokenizer.post_processor = post_processor
    tokenizer.add_tokens(ADDED)
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer


def write_config(directory, **config):
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", VARIANTS)
def test_trained_variants_give_the_same_ids_and_text(tmp_path, name):
    train(tmp_path, *VARIANTS[name])
    write_config(tmp_path, tokenizer_class="PreTrainedTokenizerFast", eos_token="</s>", bos_token="<s>")
    compare(tmp_path, HAND_PICKED + random_texts(100, 2))


CONFIGS = {
    "flags_in_added_tokens_decoder": {
        "added_tokens_decoder": {
            "3": {"content": "hello", "lstrip": True, "special": True, "normalized": False},
            "9000": {"content": "<new>", "special": False},
        },
        "eos_token": "hello",
    },
    "tokens_that_are_new": {
        "eos_token": "<end>",
        "bos_token": {"__type": "AddedToken", "content": "<b>", "rstrip": True, "normalized": True},
        "additional_special_tokens": ["<extra>", "World"],
        "image_token": "<image>",
    },
    "extra_tokens_with_names": {"extra_special_tokens": {"audio_token": "<audio>"}, "pad_token": None},
    "special_tokens_split": {"split_special_tokens": True, "eos_token": "</s>"},
    "bos_asked_for": {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>"},
    "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
    "gpt2_prefix_space": {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
    "qwen2": {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "</s>"},
    "neox": {"tokenizer_class": "GPTNeoXTokenizerFast", "additional_special_tokens": ["<m>"]},
    "cohere": {"tokenizer_class": "CohereTokenizerFast"},
    "llama": {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>"},
    "nothing": {},
}


@pytest.mark.parametrize("model_type", ("", "llama", "qwen2", "qwen3", "mistral"))
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_change_ids_as_transformers_lets_them(tmp_path, name, model_type):
    train(tmp_path, N.NFC(), [P.Digits(True), byte_level()], BOS)
    write_config(tmp_path, **CONFIGS[name])
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    compare(tmp_path, HAND_PICKED + random_texts(20, 4), n_random_ids=30)


@pytest.mark.parametrize("model_type", ("", "llama", "mistral"))
@pytest.mark.parametrize("flags", ({}, {"legacy": True}, {"add_prefix_space": False}))
@pytest.mark.parametrize("name", ("LlamaTokenizer", "PreTrainedTokenizerFast"))
def test_sentencepiece_s_bpe_is_that_of_the_class(tmp_path, name, flags, model_type):
    """Llama 2's class has a pre-tokenizer of its own; others take the normaliser of the file."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(files_of_this_project()[:4], trainer)
    tokenizer.decoder = D.Sequence(
        [D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = BOS
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, tokenizer_class=name, bos_token="<s>", eos_token="</s>", **flags)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    compare(tmp_path, HAND_PICKED + ["x</s> y", "<s>  z"] + random_texts(10, 6), n_random_ids=20)


def test_words_of_sentencepiece_s_bpe_are_cut_only_where_no_token_goes_on(tmp_path):
    """Without a pre-tokenizer the whole text is one word; most vocabularies allow to cut it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = N.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = P.Metaspace(prepend_scheme="never")
    special = ["<unk>", "<s>", "</s>", "\u2581\u2581", "\u2581\u2581\u2581"]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(files_of_this_project()[:4], trainer)
    saved = json.loads(tokenizer.to_str())
    saved["pre_tokenizer"], saved["added_tokens"] = None, saved["added_tokens"][:3]
    saved["model"]["merges"] = [["\u2581", "\u2581"], ["\u2581\u2581", "\u2581"]] + saved["model"]["merges"]
    write_config(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    texts = HAND_PICKED + ["a  b   c    d ", "  x", "   "] + random_texts(40, 8) + samples_of_data(10)
    for last in ([], [["e", "\u2581"]], [["e", "\u2581t"]]):  # the second and third forbid it
        saved["model"]["merges"] += last
        for left, right in last:
            saved["model"]["vocab"].setdefault(left + right, len(saved["model"]["vocab"]))
        (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
        compare(tmp_path, texts, n_random_ids=20)


def unigram(special):
    """T5's order of special tokens, or XLM-R's, then pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = P.Metaspace()
    unknown = "[UNK]" if "[UNK]" in special else "<unk>"
    trainer = trainers.UnigramTrainer(
        vocab_size=700, unk_token=unknown, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(files_of_this_project()[:4] + ["héllo"], trainer)
    tokenizer.normalizer = N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")])
    tokenizer.decoder = D.Metaspace()
    return tokenizer


def word_piece(special):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = P.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(files_of_this_project()[:4], trainer)
    tokenizer.decoder = D.WordPiece()
    return tokenizer


def sentencepiece_bpe(special):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = N.Replace(" ", "\u2581")
    special = special + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(files_of_this_project()[:4], trainer)
    tokenizer.decoder = D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse()])
    tokenizer.post_processor = PP.TemplateProcessing(f"{special[2]} $A", "$A $B", [(special[2], 2)])
    return tokenizer


def with_post_processor(make):
    """The file's own one, which some classes keep and some replace."""

    def made(special):
        tokenizer = make(special)
        tokenizer.post_processor = PP.TemplateProcessing(f"$A {special[2]}", "$A $B", [(special[2], 2)])
        return tokenizer

    return made


def byte_bpe(special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=P.ByteLevel.alphabet(), special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(files_of_this_project()[:4], trainer)
    tokenizer.decoder = D.ByteLevel()
    return tokenizer


ALBERT = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
DEBERTA = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
FAMILIES = {
    "RobertaTokenizer": (with_post_processor(byte_bpe), ROBERTA, ({}, {"add_prefix_space": True})),
    "BartTokenizerFast": (byte_bpe, ROBERTA, ({},)),
    "AlbertTokenizer": (
        unigram,
        ALBERT,
        ({}, {"do_lower_case": False, "keep_accents": True}, {"add_prefix_space": False}),
    ),
    "AlbertTokenizerFast": (with_post_processor(unigram), ALBERT, ({},)),
    "DebertaV2TokenizerFast": (
        with_post_processor(unigram),
        DEBERTA,
        ({}, {"do_lower_case": True, "split_by_punct": True}, {"add_prefix_space": False}),
    ),
    "DebertaV2Tokenizer": (unigram, DEBERTA, ({},)),
    "T5Tokenizer": (unigram, ["<pad>", "</s>", "<unk>"], ({}, {"extra_ids": 3})),
    "XLMRobertaTokenizer": (
        unigram,
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        ({}, {"add_prefix_space": False}),
    ),
    "BertTokenizer": (
        word_piece,
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        ({}, {"do_lower_case": False}, {"strip_accents": False, "tokenize_chinese_chars": False}),
    ),
    "GemmaTokenizer": (sentencepiece_bpe, ["<pad>", "<eos>", "<bos>", "<unk>"], ({}, {"eos_token": "<eos>"})),
    "CodeLlamaTokenizer": (
        sentencepiece_bpe,
        ["<unk>", "<s>", "</s>"],
        ({}, {"add_prefix_space": False}, {"prefix_token": None, "eos_token": "</s>"}),
    ),
}


@pytest.mark.parametrize(
    "name, case", [(n, i) for n, (_, _, cases) in FAMILIES.items() for i in range(len(cases))]
)
def test_classes_with_components_of_their_own_are_those_of_transformers(tmp_path, name, case):
    make, special, cases = FAMILIES[name]
    make(special).save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, tokenizer_class=name, **cases[case])
    texts = HAND_PICKED + ["x</s> y", "<s>  z", "<extra_id_1>", "a [MASK] b"] + random_texts(20, 7)
    compare(tmp_path, texts, n_random_ids=20)


@pytest.mark.parametrize("name", ("CamembertTokenizer", "WhisperTokenizerFast"))
def test_a_class_with_components_that_are_not_known_is_refused_by_name(tmp_path, name):
    if not PROBE.exists():
        pytest.skip(f"no probe at {PROBE}: build the target lorry_tokenizer_probe")
    train(tmp_path, None, [byte_level()], None)
    write_config(tmp_path, tokenizer_class=name)
    done = subprocess.run([PROBE, tmp_path], capture_output=True, text=True, input="")
    assert done.returncode == 1 and name.removesuffix("Fast") in done.stderr


LONG = {
    "unigram": lambda: unigram(["<pad>", "</s>", "<unk>"]),
    "word_piece": lambda: word_piece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
    "one_word": lambda: sentencepiece_bpe(["<unk>", "<s>", "</s>"]),
    "bytes": lambda: byte_bpe(ROBERTA),
}


@pytest.mark.parametrize("name", LONG)
def test_long_runs_give_the_same_ids_whatever_the_model(tmp_path, name):
    """Work that grows with the square of a run would not end."""
    tokenizer = LONG[name]()
    if name == "bytes":
        tokenizer.normalizer = N.NFC()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    n = 1 << 17
    texts = [c * n for c in "a \n1."] + ["é" * (n // 2), "中" * (n // 3), "ab" * (n // 2), "a " * (n // 2)]
    texts += ["e" + "\u0301" * (n // 2), "\u1100\u1161" * (n // 6), "aé中1. \n" * (n // 10)]
    peer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    wanted = [peer.encode(text, add_special_tokens=False).ids for text in texts]
    _, answers = ask(tmp_path, [{"text": t, "special": False} for t in texts])
    assert [a["ids"] for a in answers] == wanted
    _, decoded = ask(tmp_path, [{"ids": ids} for ids in wanted])
    for ids, answer in zip(wanted, decoded, strict=True):
        assert answer["text"] == answer["stream"] == peer.decode(ids, skip_special_tokens=False)


def test_special_tokens_map_json_counts_for_older_models(tmp_path):
    train(tmp_path, None, [byte_level()], BOS)
    write_config(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    names = {"bos_token": "<s>", "eos_token": {"content": "<end>", "lstrip": True, "normalized": False}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    compare(tmp_path, HAND_PICKED + ["a <end>"], n_random_ids=10)


def test_unsupported_parts_are_named_at_load(tmp_path):
    if not PROBE.exists():
        pytest.skip(f"no probe at {PROBE}: build the target lorry_tokenizer_probe")
    train(tmp_path, None, [byte_level()], None)
    path = tmp_path / "tokenizer.json"
    whole = json.loads(path.read_text())
    for field in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        path.write_text(json.dumps(whole | {field: {"type": "Unheard"}}))
        done = subprocess.run([PROBE, tmp_path], capture_output=True, text=True, input="")
        assert done.returncode == 1 and field in done.stderr and "'Unheard'" in done.stderr
