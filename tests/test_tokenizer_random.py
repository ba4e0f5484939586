"""Random tokenizer.json files beside the peer `tokenizers`: ids, offsets, decoding.

Five vocabularies are trained once; each seed then draws a model, its options, normalizers,
pre-tokenizers, a post-processor, a decoder and added tokens. One that fails is run again with
`-k "[17]"`.

Needs lorry_tokenizer_probe in $LORRY_BUILD or build/release.
"""

import base64
import json
import os
import random
import struct
import subprocess

import pytest
from conftest import SEED, SOAK

os.environ["HF_HUB_OFFLINE"] = "1"
tokenizers = pytest.importorskip("tokenizers")
from test_tokenizer import HAND_PICKED, PROBE, ask, files_of_this_project, random_texts  # noqa: E402
from tokenizers import Tokenizer, models, trainers  # noqa: E402
from tokenizers import pre_tokenizers as P  # noqa: E402

SEEDS = 1500 if SOAK else 60
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]


# ---- a precompiled_charsmap like SentencePiece's ----


def double_array(strings):
    """{string: value} as a Darts-clone double array, found by trying offsets in turn."""
    units = [0] * 256
    used = [False] * 256
    used[0] = True

    def grow(n):
        while len(units) < n:
            units.extend([0] * 256)
            used.extend([False] * 256)

    def place(at, entries, depth):
        labels = {}
        for key, value in entries:
            labels.setdefault(key[depth] if depth < len(key) else 0, []).append((key, value))
        offset = next(
            o for o in range(1, 1 << 21) if grow((o | 255) + 1) or not any(used[o ^ c] for c in labels)
        )
        for c in labels:
            used[offset ^ c] = True
        relative = offset ^ at
        assert relative < 1 << 21
        units[at] |= relative << 10 | (1 << 8 if 0 in labels else 0)
        for c, below in labels.items():
            if c == 0:
                units[offset ^ c] = 1 << 31 | below[0][1]
            else:
                units[offset ^ c] |= c
                place(offset ^ c, below, depth + 1)

    place(0, sorted(strings.items()), 0)
    return units


def charsmap(changes):
    normalized, strings = b"", {}
    for key, value in changes.items():
        strings[key.encode()] = len(normalized)
        normalized += value.encode() + b"\0"
    units = double_array(strings)
    blob = struct.pack(f"<{len(units)}I", *units)
    return base64.b64encode(struct.pack("<I", len(blob)) + blob + normalized).decode()


CHARSMAP = charsmap(
    {
        "\u3000": " ", "Ａ": "A", "ﬁ": "fi", "①": "1", "é": "e", "e\u0301": "é", "\n": " ", "\t": " ",
        "\u00ad": "", "½": "1/2", "\u0958": "\u0915\u093c", "中": "zh", "!": "！", "ab": "AB", "\u0301": "",
        "\U0001f3f3": "flag", "\u0600": "n", "\r\n": "  ", "각": "gag", "B": "\u00df",
    }
)  # fmt: skip


# ---- vocabularies ----


def corpus():
    return files_of_this_project() + random_texts(60, 5) + ["héllo wörld 中文 " * 20]


def train(model, trainer, pre_tokenizer, texts=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(texts or corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


@pytest.fixture(scope="module")
def vocabularies():
    quiet = {"show_progress": False, "special_tokens": SPECIAL}
    alphabet = P.ByteLevel.alphabet()
    out = {
        "bytes": train(
            models.BPE(),
            trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, **quiet),
            P.ByteLevel(add_prefix_space=False),
        ),
        "chars": train(
            models.BPE(unk_token="<unk>"),
            trainers.BpeTrainer(
                vocab_size=1100, limit_alphabet=90, show_progress=False, special_tokens=SPECIAL + BYTES
            ),
            P.Metaspace(),
        ),
        "suffix": train(
            models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"),
            trainers.BpeTrainer(
                vocab_size=700,
                limit_alphabet=80,
                continuing_subword_prefix="##",
                end_of_word_suffix="</w>",
                **quiet,
            ),
            P.Whitespace(),
        ),
        "words": train(
            models.WordLevel(unk_token="<unk>"),
            trainers.WordLevelTrainer(vocab_size=600, **quiet),
            P.Whitespace(),
        ),
        "pieces": train(
            models.WordPiece(unk_token="<unk>"),
            trainers.WordPieceTrainer(vocab_size=900, limit_alphabet=100, **quiet),
            P.BertPreTokenizer(),
        ),
    }
    trainer = trainers.UnigramTrainer(
        vocab_size=900, unk_token="<unk>", show_progress=False, special_tokens=SPECIAL + BYTES
    )
    out["unigram"] = train(models.Unigram(), trainer, P.Metaspace(), files_of_this_project() + ["héllo wörld"])
    return out


# ---- random components, as JSON ----


def one_of(r, *choices):
    return r.choice(choices)()


def flip(r):
    return r.random() < 0.5


PATTERNS = [
    r"\s+", r"\w+|[^\w\s]+", r"[aeiou]", r"\p{L}+", r"\d{1,3}", r"(?<=\s)\S", r"\s+(?!\S)|\s+", r"[^\S\n]+|\n",
    r"(?i:'s|'t|ll)", r"\p{Lu}?\p{Ll}+|\p{N}", r"^\s|\s$", r"", r"x*", r"\b", r"(?=a)",
]  # fmt: skip
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def pattern(r):
    if flip(r):
        return {"String": r.choice([" ", "a", "  ", "\u2581", ".", "$", "é", "he", "[", "\\"])}
    return {"Regex": r.choice(PATTERNS)}


def normalizer(r, depth=0):
    choices = [
        lambda: {"type": r.choice(["NFC", "NFD", "NFKC", "NFKD"])},
        lambda: {"type": r.choice(["Lowercase", "StripAccents", "Nmt", "ByteLevel"])},
        lambda: {"type": "Strip", "strip_left": flip(r), "strip_right": flip(r)},
        lambda: {"type": "Replace", "pattern": pattern(r), "content": r.choice(["", " ", "\u2581", "bb", "é"])},
        lambda: {"type": "Prepend", "prepend": r.choice(["\u2581", "x", "éa"])},
        lambda: {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
        lambda: {
            "type": "BertNormalizer",
            "clean_text": flip(r),
            "handle_chinese_chars": flip(r),
            "strip_accents": r.choice([None, True, False]),
            "lowercase": flip(r),
        },
    ]
    if depth == 0:
        many = lambda: {  # noqa: E731
            "type": "Sequence",
            "normalizers": [normalizer(r, 1) for _ in range(r.randrange(4))],
        }
        choices += [many] * 5 + [lambda: None] * 4
    return one_of(r, *choices)


def metaspace(r, kind="Metaspace"):
    scheme = r.choice(["always", "first", "never"])
    return {"type": kind, "replacement": r.choice("\u2581\u2581_"), "prepend_scheme": scheme, "split": flip(r)}


def byte_level(r):
    return {
        "type": "ByteLevel",
        "add_prefix_space": flip(r),
        "trim_offsets": True,
        "use_regex": flip(r),
    }


def pre_tokenizer(r, depth=0):
    plain = ["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"]
    choices = [
        lambda: {"type": r.choice(plain)},
        lambda: {"type": "Digits", "individual_digits": flip(r)},
        lambda: {"type": "Punctuation", "behavior": r.choice(BEHAVIORS)},
        lambda: {"type": "CharDelimiterSplit", "delimiter": r.choice(" ae_é")},
        lambda: {"type": "FixedLength", "length": r.randrange(1, 8)},
        lambda: {
            "type": "Split",
            "pattern": pattern(r),
            "behavior": r.choice(BEHAVIORS),
            "invert": flip(r),
        },
        lambda: metaspace(r),
        lambda: byte_level(r),
    ]
    if depth == 0:
        many = lambda: {  # noqa: E731
            "type": "Sequence",
            "pretokenizers": [pre_tokenizer(r, 1) for _ in range(r.randrange(4))],
        }
        choices += [many] * 5 + [lambda: None]
    return one_of(r, *choices)


def decoder(r, depth=0):
    choices = [
        lambda: {"type": r.choice(["Fuse", "ByteFallback"])},
        lambda: byte_level(r),
        lambda: {"type": "Strip", "content": r.choice(" ae"), "start": r.randrange(3), "stop": r.randrange(3)},
        lambda: {"type": "Replace", "pattern": pattern(r), "content": r.choice(["", " ", "z"])},
        lambda: metaspace(r),
        lambda: {"type": "WordPiece", "prefix": "##", "cleanup": flip(r)},
        lambda: {"type": "BPEDecoder", "suffix": "</w>"},
        lambda: {
            "type": "CTC",
            "pad_token": r.choice(["<s>", "a"]),
            "word_delimiter_token": r.choice("|e"),
            "cleanup": flip(r),
        },
    ]
    if depth == 0:
        many = lambda: {  # noqa: E731
            "type": "Sequence",
            "decoders": [decoder(r, 1) for _ in range(r.randrange(1, 4))],
        }
        choices += [many] * 6 + [lambda: None]
    return one_of(r, *choices)


def post_processor(r, ids, depth=0):
    def template():
        def specials():
            return [{"SpecialToken": {"id": t, "type_id": 0}} for t in SPECIAL[1:] if flip(r)]

        return {
            "type": "TemplateProcessing",
            "single": specials() + [{"Sequence": {"id": "A", "type_id": 0}}] + specials(),
            "pair": [{"Sequence": {"id": s, "type_id": 0}} for s in "AB"],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in SPECIAL},
        }

    pair = {"sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]]}
    choices = [
        template,
        lambda: byte_level(r) | {"trim_offsets": False},
        lambda: {"type": "BertProcessing"} | pair,
        lambda: {"type": "RobertaProcessing", "trim_offsets": False, "add_prefix_space": False} | pair,
    ]
    if depth == 0:
        many = lambda: {  # noqa: E731
            "type": "Sequence",  # of which one adds tokens: a template is refused before another
            "processors": [byte_level(r) | {"trim_offsets": False}, post_processor(r, ids, 1)],
        }
        choices += [many, lambda: None]
    return one_of(r, *choices)


def added_tokens(r, vocab_ids, size):
    out, next_id = [], size
    contents = r.sample(["hello", "<l>", "World", "zz", "Foo Bar", "é", "<|x|>", "<|x|>y", "Ａ", "a"], r.randrange(7))
    for content in SPECIAL[: r.randrange(4)] + contents:
        known = vocab_ids.get(content)
        out.append(
            {
                "id": next_id if known is None else known,
                "content": content,
                "single_word": r.random() < 0.3,
                "lstrip": r.random() < 0.3,
                "rstrip": r.random() < 0.3,
                "normalized": flip(r),
                "special": flip(r),
            }
        )
        next_id += known is None
    return sorted(out, key=lambda t: t["id"])


def configuration(r, vocabularies):
    name = r.choice(sorted(vocabularies) + ["unigram", "chars"])
    model = dict(vocabularies[name])
    if model["type"] == "BPE":
        if name == "chars":
            model |= {"byte_fallback": flip(r), "fuse_unk": flip(r), "unk_token": r.choice(["<unk>", None])}
        model["ignore_merges"] = r.random() < 0.3
    elif model["type"] == "Unigram":
        model["byte_fallback"] = flip(r)
    elif model["type"] == "WordPiece":
        model |= {"max_input_chars_per_word": r.choice([5, 100]), "unk_token": r.choice(["<unk>", "a"])}
    vocab = model["vocab"]
    ids = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(r, ids, len(vocab)),
        "normalizer": normalizer(r),
        "pre_tokenizer": pre_tokenizer(r),
        "post_processor": post_processor(r, ids),
        "decoder": decoder(r),
        "model": model,
    }


# ---- comparison ----


def keeps_places(config):
    """Whether offsets are compared: where characters change, ours are those of the whole segment."""
    text = json.dumps([config["normalizer"], config["pre_tokenizer"], config["model"].get("byte_fallback")])
    loose = ('{"type": "ByteLevel"}', "NF", "Bert", "Prepend", "Metaspace", '"add_prefix_space": true', "Replace", "Precompiled", "true]")
    return not any(word in text for word in loose) and not drops_characters(config)


def drops_characters(config):
    """Whether a BPE has no unknown token and may lack characters: they are dropped, and the peer's places of
    the rest of the word are then those of other characters."""
    model, splits = config["model"], json.dumps(config["pre_tokenizer"])
    if model["type"] != "BPE" or model.get("unk_token"):
        return False
    return "ByteLevel" not in splits or not all(c in model["vocab"] for c in P.ByteLevel.alphabet())


def to_characters(text, spans):
    """Byte offsets as offsets of characters; those inside a character widen to it."""
    index = []
    for i, c in enumerate(text):
        index += [i] * len(c.encode())
    index.append(len(text))
    return [[index[a], index[b - 1] + 1 if b > a else index[a]] for a, b in spans]


def same_places(text, ours, theirs):
    """Equal but for tokens that no text made: the peer puts all of them at 0."""
    return all(
        a == list(b) or (tuple(b) == (0, 0) and a[0] == a[1])
        for a, b in zip(to_characters(text, ours), theirs, strict=True)
    )


def attempt(work, *args, **kwargs):
    """None where the peer panics (Strip on a token that is all to be stripped, and others)."""
    try:
        return work(*args, **kwargs)
    except BaseException as error:  # pyo3's PanicException is no Exception
        if "Panic" not in type(error).__name__:
            raise
        return None


def distinct(config):
    """The peer's tokenizer, after tokens that normalise to the same are told apart: which of them
    the peer finds changes from run to run."""
    normalizer = Tokenizer.from_str(json.dumps(config)).normalizer
    seen = {""}  # with a token that normalises to nothing the peer panics, or finds it everywhere
    for token in config["added_tokens"]:
        form = normalizer.normalize_str(token["content"]) if normalizer else token["content"]
        token["normalized"] &= form not in seen
        seen.add(form)
    return Tokenizer.from_str(json.dumps(config))


def texts_for(r):
    out = HAND_PICKED + random_texts(8, r.randrange(1 << 30)) + r.sample(files_of_this_project(), 1)
    for _ in range(12):
        bits = ["hello", "<l>", " ", "World", "zz", "Foo Bar", "é", "<|x|>", "y", "<s>", "</s>", "\n", "a", "<unk>"]
        out.append("".join(r.choice(bits) for _ in range(r.randrange(1, 10))))
    return out


def test_piece_listed_twice_takes_two_ids(tmp_path):
    """As in a Unigram vocabulary trained on a text that names its own byte tokens."""
    pieces = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["a", -3.0], ["ab", -9.0]]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    config = {
        "version": "1.0",
        "added_tokens": [{"id": 5, "content": "<l>"} | added],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    } | dict.fromkeys(["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"])
    peer = Tokenizer.from_str(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    texts, runs = ["abba<l>a", "ab"], [[1, 3, 5], [5, 2, 1]]
    requests = [{"text": t, "special": True} for t in texts] + [{"ids": i, "skip": False} for i in runs]
    lines = "".join(json.dumps(q) + "\n" for q in requests)
    done = subprocess.run([PROBE, tmp_path], input=lines, capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.split("\n")[1:-1]]
    assert [a["ids"] for a in answers[:2]] == [peer.encode(t).ids for t in texts]
    assert [a["text"] for a in answers[2:]] == [peer.decode(i, skip_special_tokens=False) for i in runs]


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_random_tokenizers_are_those_of_the_peer(tmp_path, vocabularies, seed):
    if not PROBE.exists():
        pytest.skip(f"no probe at {PROBE}: build the target lorry_tokenizer_probe")
    r = random.Random(seed)
    config = configuration(r, vocabularies)
    described = {k: v for k, v in config.items() if k != "model"} | {
        "model": {k: v for k, v in config["model"].items() if k not in ("vocab", "merges")}
    }
    peer = attempt(distinct, config)
    if peer is None:
        pytest.skip("the peer panics over this configuration")
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    requests, wanted = [], []
    for i, text in enumerate(texts_for(r)):
        special = i % 3 == 0
        encoding = attempt(peer.encode, text, add_special_tokens=special)
        if encoding is None:
            continue
        requests.append({"text": text, "special": special})
        wanted.append((encoding.ids, encoding.offsets))
    size = peer.get_vocab_size()
    runs = [ids for ids, _ in wanted[:60]]
    runs += [[r.randrange(size + 2) for _ in range(r.randrange(25))] for _ in range(30)]
    for i, ids in enumerate(runs):
        text = attempt(peer.decode, ids, skip_special_tokens=i % 2 == 0)
        if text is not None:
            requests.append({"ids": ids, "skip": i % 2 == 0})
            wanted.append(text)
    lines = "".join(json.dumps(q) + "\n" for q in requests)
    done = subprocess.run([PROBE, tmp_path], input=lines, capture_output=True, text=True)
    assert done.returncode == 0, (done.stderr, described)
    answers = [json.loads(line) for line in done.stdout.split("\n")[1:-1]]
    places = keeps_places(config)
    for request, want, got in zip(requests, wanted, answers, strict=True):
        if "ids" in request:
            assert (got["text"], got["stream"]) == (want, want), (request, described)
            continue
        assert got["ids"] == want[0], (request, described)
        assert got["same"]
        if places:
            assert same_places(request["text"], got["offsets"], want[1]), (request, described)


def test_text_that_lost_its_first_characters_is_still_the_start(tmp_path, vocabularies):
    """Metaspace puts its mark before what came from place 0, removed characters or not."""
    config = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": vocabularies["unigram"],
    }
    peer = Tokenizer.from_str(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    texts = ["\u00adif x", "\u0301\u00adif", "if\u00ad x", "\u00ad", "\u00ad\u3000if"]
    _, answers = ask(tmp_path, [{"text": text, "special": False} for text in texts])
    assert [a["ids"] for a in answers] == [peer.encode(t, add_special_tokens=False).ids for t in texts]
