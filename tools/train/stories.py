"""Stories in, token streams out: what the trainer and the evaluation share.

A story file is what `go run ./tools/storytext -format jsonl` writes: one JSON
object a line, {"text": ..., "bits": ...}, where bits is the exact information
content of the text under the grammar.
"""

import json

import numpy as np

END = "<|endoftext|>"
END_ID = 0


def read(path):
    """Returns the texts of a story file and the exact bits of each."""
    texts, bits = [], []
    with open(path, encoding="utf-8") as f:
        for line in f:
            story = json.loads(line)
            texts.append(story["text"])
            bits.append(story["bits"])
    return texts, np.array(bits, dtype=np.float64)


def encode(tokenizer, texts, chunk=20000):
    """Encodes every story with a tokenizers.Tokenizer; yields uint16 arrays."""
    for i in range(0, len(texts), chunk):
        for e in tokenizer.encode_batch(texts[i : i + chunk], add_special_tokens=False):
            yield np.array(e.ids, dtype=np.uint16)


def stream(encoded):
    """One stream: <|endoftext|> story <|endoftext|> story <|endoftext|> ..."""
    end = np.array([END_ID], dtype=np.uint16)
    parts = [end]
    for ids in encoded:
        parts += [ids, end]
    return np.concatenate(parts)
