#!/usr/bin/env python3
"""Writes internal/tokenizer/testdata/kinds: a small tokenizer.json of every kind that internal/tokenizer reads, and the ids that tokenizers gives.

    python tools/interop/golden/tokenizer.py internal/tokenizer/testdata/kinds

The vocabularies are trained here, on sentences made up here, with each kind's own pre-tokenizer, so nothing of anybody's model is in them. The library is
tokenizers 0.22.2. NAME.json is a tokenizer, NAME.ids.json what becomes of the texts in texts.json: ids with and without what the post-processor
adds, and the texts of the former without and with special tokens.
"""

import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

WORDS = """the a small river ran under old bridge where two children counted boats every morning and nobody knew why they'd
stopped when winter came I'm sure it's not what we've seen before he'll say don't 12 345 2026 of in to and that is was for on with as by
naïve café Straße größer où été Übung Москва дом река мост дети считали 東京 日本語 文字 数える 橋 川 子供 한국어 다리 아이 مرحبا جسر שלום
func return if err != nil { } := range == <= -> :: # // /* */ [0] (x, y) "quoted" 'single' 🌉 🚣 👩‍👧 ✓ … — “said” """.split()


def sentences(count, seed=1):
    chance = random.Random(seed)
    for _ in range(count):
        words = [chance.choice(WORDS) for _ in range(chance.randint(3, 14))]
        yield chance.choice(["", " ", "  ", "\t"]) + chance.choice([" ", " ", " ", "  ", "\n"]).join(words) + chance.choice([".", "!", "\n", "\n\n", ""])


def odd_texts(count, seed=2):
    """Texts of what tokenizers disagree about: spaces of all sorts, marks out of order, long runs, halves of words, tokens written out."""
    chance = random.Random(seed)
    pools = [
        list(" \t\n\r\u00a0\u2003\u3000\u0085\u200b\u2028\ufeff\v\f\u1680") + ["  ", "   ", "\r\n", "\n\n"],
        list("abcXYZ'’sStTmMdDlLrReEvVſK") + ["'s", "'LL", "'Re", "'ſ", "don't", "I'VE", "we'll"],
        list("0123456789٣५७½²Ⅷ一二三") + ["1234567", "3.14", "1,000"],
        list("éèñüßİıǅʰªº") + ["e\u0301", "a\u0323\u0302", "\u0958", "\uac00", "\u1112\u1161\u11ab", "ﬁ", "Å", "\u212b", "\u0344", "o\u0302\u0323\u0301"],
        list("漢字かなカナ한국中文，。「」"),
        ["🌉", "👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "☃", "✈️", "\U0001f9ff", "\U0001fae8"],
        list("!?.,;:-_/\\|()[]{}<>@#$%^&*+=~`\"'▁Ġ"),
        ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|begin_of_text|>", "<0x0A>", "<x>", "<mask>", "WORD", "▁▁", "▁"],
        ["\x00", "\x01", "\x7f", "\xad", "\ufffd", "\ue000", "\U0010ffff", "\u0378", "\U00016d40", "\U0001e5f1", "\u1c89", "\U00011938", "\u0898", "\u20d0"],
        WORDS,
    ]
    yield from ["", " ", "  ", "\n", "a", "'", " '", "\u0301", "a" + "\u0323\u0301" * 40, " " * 100, "a" * 200, "\n" * 50, "▁", "▁ ▁", " a", "  a", "a ", "a  "]
    for _ in range(count):
        chosen = chance.sample(pools, chance.randint(1, 4))
        yield "".join(chance.choice(chance.choice(chosen)) for _ in range(chance.randint(1, 24)))


def trained(vocab, tokenizer, special=(), initial=()):
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(special), initial_alphabet=list(initial), show_progress=False)
    tokenizer.train_from_iterator(sentences(3000), trainer)
    return json.loads(tokenizer.to_str())


def byte_level(vocab=440, pattern=None, **settings):
    t = Tokenizer(models.BPE(**settings))
    if pattern is None:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, True, False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return trained(vocab, t, initial=sorted(pre_tokenizers.ByteLevel.alphabet()))


def sentence_piece(vocab=440, bytes=True, **settings):
    """A vocabulary as SentencePiece orders it: unknown, begin, end, bytes, and what was trained."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    head = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256 if bytes else 0)]
    d = trained(vocab, t, special=head)
    d["added_tokens"] = d["added_tokens"][:3]
    d["model"].update({"fuse_unk": True, "byte_fallback": bytes, **settings})
    return d


def template(before, after=()):
    parts = [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in before] + [{"Sequence": {"id": "A", "type_id": 0}}]
    parts += [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in after]
    special = {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in [*before, *after]}
    return {"type": "TemplateProcessing", "single": parts, "pair": parts + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}


def add(document, content, special=True, **flags):
    vocab = document["model"]["vocab"]
    ids = [t["id"] for t in document["added_tokens"]] + [len(vocab) - 1]
    token = {"id": vocab.get(content, max(ids) + 1), "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    document["added_tokens"].append({**token, **flags})
    return content, document["added_tokens"][-1]["id"]


def prepend_and_replace():
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}


def llama_decoder():
    return {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def kinds():
    out = {}

    d = out["gpt2"] = byte_level()
    add(d, "<|endoftext|>", normalized=True)
    d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]

    d = out["roberta"] = byte_level()
    d["pre_tokenizer"]["add_prefix_space"] = True
    s, e = add(d, "<s>"), add(d, "</s>")
    add(d, "<mask>", lstrip=True)
    d["post_processor"] = {"type": "RobertaProcessing", "sep": list(e), "cls": list(s), "trim_offsets": True, "add_prefix_space": True}

    d = out["llama3"] = byte_level(pattern=LLAMA3)
    d["model"]["ignore_merges"] = True
    vocab = d["model"]["vocab"]
    for whole in ["Ġbridges", "ĠMos", "12345"]:  # tokens that no merge makes: only ignore_merges finds them
        vocab.setdefault(whole, len(vocab))
    b = add(d, "<|begin_of_text|>")
    add(d, "<|endoftext|>")
    d["post_processor"] = {"type": "Sequence", "processors": [d["post_processor"], template([b])]}

    d = out["qwen2"] = byte_level(pattern=QWEN2)
    d["normalizer"] = {"type": "NFC"}
    d["model"].update({"continuing_subword_prefix": "", "end_of_word_suffix": ""})
    for t in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]:
        add(d, t)
    add(d, "<x>", special=False, normalized=False)

    d = out["llama2"] = sentence_piece()
    d.update({"normalizer": prepend_and_replace(), "pre_tokenizer": None, "decoder": llama_decoder(), "post_processor": template([("<s>", 1)])})

    d = out["mistral"] = sentence_piece()
    d.update({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
              "decoder": llama_decoder(), "post_processor": template([("<s>", 1)], [("</s>", 2)])})
    add(d, "[INST]")
    add(d, "WORD", special=False, single_word=True)

    d = out["metaspace"] = sentence_piece(bytes=False)
    d.update({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
              "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}, "post_processor": template([("<s>", 1)])})

    d = out["unknown"] = sentence_piece(bytes=False, fuse_unk=False)
    d.update({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": "  "}, "content": " "}]},
              "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                  {"type": "Digits", "individual_digits": True},
                  {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}]},
              "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}, "post_processor": None})
    add(d, "<x>", special=False, lstrip=True, rstrip=True)
    add(d, "WORD", special=False, single_word=True)
    add(d, "İ", special=False)
    add(d, "<mask>", lstrip=True, rstrip=True, single_word=True)

    # Nothing but the pre-tokenizer shows here: every part is one unknown token, or several with an "a" or a space between.
    for name, pattern in [("gpt2", GPT2), ("llama3", LLAMA3), ("qwen2", QWEN2), ("digits", None)]:
        t = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1, " ": 2}, merges=[], unk_token="<unk>", fuse_unk=True))
        t.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated") if pattern else pre_tokenizers.Digits(individual_digits=True)
        out["parts-" + name] = json.loads(t.to_str())
    return out


def answers(t, texts):
    ids = [e.ids for e in t.encode_batch(texts)]
    plain = [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]
    return [{"ids": i, "plain": p, "text": t.decode(i), "whole": t.decode(i, skip_special_tokens=False)} for i, p in zip(ids, plain)]


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    texts = [*sentences(4, seed=3), *odd_texts(9, seed=4)]
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    (out / "texts.json").write_text(json.dumps(texts, ensure_ascii=True, indent=0) + "\n")
    for name, document in kinds().items():
        (out / f"{name}.json").write_text(json.dumps(document, **compact) + "\n", encoding="utf-8")
        (out / f"{name}.ids.json").write_text(json.dumps(answers(Tokenizer.from_str(json.dumps(document)), texts), **compact) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
