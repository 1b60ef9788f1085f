"""Trains the byte-level BPE tokenizer that both story models share.

    python tokenizer.py --stories FILE.jsonl --out DIR [--vocab 768]

The pre-tokenizer is GPT-2's (ByteLevel with its regular expression, no prefix
space), because inference engines know that one by name. The only special token
is <|endoftext|>, id 0; it stands before, between and after stories.
"""

import argparse
import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import stories


def train(texts, vocab):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[stories.END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    t.train_from_iterator(texts, trainer)
    return t


def write(tokenizer, out, context):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(json.loads(tokenizer.to_str()), f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(stories.END_ID): {
                "content": stories.END,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
        },
        "bos_token": stories.END,
        "eos_token": stories.END,
        "pad_token": stories.END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--stories", required=True, help="story file, jsonl")
    p.add_argument("--out", required=True, help="directory for tokenizer.json and tokenizer_config.json")
    p.add_argument("--vocab", type=int, default=768)
    p.add_argument("--context", type=int, default=512)
    a = p.parse_args()
    texts, _ = stories.read(a.stories)
    t = train(texts, a.vocab)
    if t.get_vocab_size() != a.vocab:
        raise SystemExit(f"vocabulary has {t.get_vocab_size()} entries, not {a.vocab}: the text has too few different words")
    write(t, a.out, a.context)


if __name__ == "__main__":
    main()
