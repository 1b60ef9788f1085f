#!/usr/bin/env python3
"""Compares internal/tokenizer with the library tokenizers on 20,000 lines and more. Called by `make interop-tokenizers`.

    python tools/interop/tokenids.py PROGRAM [--only NAME]...

PROGRAM is tools/interop/tokenids, built. The small tokenizers are those of golden/tokenizer.py; with SHARDPRESS_TESTDATA also GPT-2's, Llama-2's and those of
its models, and its texts. The lines are every line of the texts, whole paragraphs of them, the source code of this repository, and texts of odd spaces,
marks, scripts, emoji and tokens written out.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent / "golden"))

import tokenizer as golden  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = os.environ.get("SHARDPRESS_TESTDATA")


def lines():
    files = sorted(pathlib.Path(DATA, "text").glob("*.txt")) if DATA else []
    for file in files:
        text = file.read_bytes().decode("utf-8")
        yield from text.splitlines(keepends=False)
        yield from text[: 1 << 18].split("\n\n")
        yield from (text[i : i + 997] for i in range(0, len(text), 9973))
    code = [f for d in ["internal", "compress", "tools", "docs"] for e in ["go", "py", "md", "s"] for f in sorted((ROOT / d).rglob(f"*.{e}")) if ".venv" not in f.parts]
    for file in code:
        text = file.read_bytes().decode("utf-8")
        yield text[:20000]
        yield from text.split("\n")[:200]
    yield from golden.sentences(3000, seed=5)
    yield from golden.odd_texts(20000, seed=6)
    chance = random.Random(7)
    assigned = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(assigned), 16):  # every character there is, with its neighbours and with those of other scripts
        if start < 0x30000 or start % 4096 == 0:
            yield " ".join(assigned[start : start + 16])
    for _ in range(8000):
        yield "".join(chance.choice(assigned[: chance.choice([0x300, 0x3000, 0x20000])]) for _ in range(20))


def tokenizers():
    compact = {"ensure_ascii": False}
    for name, document in golden.kinds().items():
        yield name, json.dumps(document, **compact)
    files = [ROOT / "testdata/models/story/tokenizer.json"]
    if DATA:
        files += sorted(pathlib.Path(DATA).glob("tokenizers/*/tokenizer.json")) + sorted(pathlib.Path(DATA).glob("models/*/tokenizer.json"))
    for file in files:
        yield file.parent.name, file.read_text(encoding="utf-8")


def compare(program, name, document, texts, work):
    (work / "tokenizer.json").write_text(document, encoding="utf-8")
    with open(work / "lines", "rb") as stdin, open(work / "answers", "wb") as stdout:
        start = time.monotonic()
        subprocess.run([program, str(work / "tokenizer.json")], stdin=stdin, stdout=stdout, check=True)
        took = time.monotonic() - start
    theirs = Tokenizer.from_str(document)
    theirs.no_truncation()
    theirs.no_padding()
    wrong = count = 0
    with open(work / "answers", encoding="utf-8") as ours:
        for begin in range(0, len(texts), 4096):
            batch = texts[begin : begin + 4096]
            for text, want in zip(batch, golden.answers(theirs, batch), strict=True):
                got = json.loads(ours.readline())
                count += len(want["ids"])
                for key in want:
                    if got[key] != want[key]:
                        wrong += 1
                        if wrong <= 5:
                            print(f"  {key} of {text[:200]!r}\n    {str(got[key])[:300]!r}\n    {str(want[key])[:300]!r}")
                        break
    print(f"{'WRONG' if wrong else 'equal'}  {name}: {len(texts)} texts, {count} tokens, {wrong} differ ({took:.1f} s)", flush=True)
    return wrong


def main():
    program, only = sys.argv[1], set(sys.argv[3::2])
    texts = list(lines())
    failed = []
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        with open(work / "lines", "w", encoding="utf-8") as f:
            for text in texts:
                f.write(json.dumps(text) + "\n")
        for name, document in tokenizers():
            if (not only or name in only) and compare(program, name, document, texts, work):
                failed.append(name)
    if failed:
        sys.exit("different: " + ", ".join(failed))


if __name__ == "__main__":
    main()
