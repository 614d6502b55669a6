"""Packs what `check.py` needs on a machine with a GPU and no network into parts of at most 60 MB.

    pip install zstandard
    python benches/gpu/prepare.py OUT --program target/release/discl-pipe --onnxruntime WHEEL --model NAME=DIR ...

OUT gets `part-000`, `part-001`, …, `manifest.json` with the SHA-256 of each, and `check.py`: copy all of them to the
machine. They hold the program; ONNX Runtime's libraries, from onnxruntime-gpu's wheel or from a folder, without the GPU
code for other GPUs than `--gpu`; models, such as those of `weightless.py`; and of the repository the digits, the
recorded pipelines and the scripts.
"""

import argparse
import hashlib
import io
import json
import lzma
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import trim

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PART_BYTES = 60_000_000
LIBRARIES = ["libonnxruntime.so", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"]
"""How the names of the wanted libraries begin."""
FROM_REPOSITORY = [
    "data/digits_lt/train.parquet",
    "data/digits_lt/validation.parquet",
    "data/digits_lt/test.parquet",
    "models/digits",
    "pipelines/digits_lt.toml",
    "tests/fixtures/opset23",
    "tests/fixtures/pipelines",
]
SCRIPTS = ["check.py", "peer.py", "weights.py"]


def libraries(source: Path) -> dict[str, bytes]:
    """ONNX Runtime's libraries by name, from a wheel, a folder or the main library's path."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            names = [name for name in wheel.namelist() if Path(name).name.startswith(tuple(LIBRARIES))]
            return {Path(name).name: wheel.read(name) for name in names}
    folder = source if source.is_dir() else source.parent
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.startswith(tuple(LIBRARIES))}


class Packer:
    """A compressed archive that is written as parts."""

    def __init__(self, out: Path, part_bytes: int) -> None:
        self.out, self.part_bytes = out, part_bytes
        self.parts: list[dict[str, object]] = []
        self.waiting = bytearray()
        self.files: dict[str, str] = {}

    def write(self, data: bytes) -> int:
        self.waiting += data
        while len(self.waiting) >= self.part_bytes:
            self.end_part(self.part_bytes)
        return len(data)

    def end_part(self, size: int) -> None:
        part, self.waiting = bytes(self.waiting[:size]), self.waiting[size:]
        name = f"part-{len(self.parts):03}"
        (self.out / name).write_bytes(part)
        self.parts.append({"name": name, "bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()})

    def add(self, archive: tarfile.TarFile, name: str, contents: bytes, mode: int = 0o644) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(contents), mode
        archive.addfile(entry, io.BytesIO(contents))
        self.files[name] = hashlib.sha256(contents).hexdigest()

    def add_tree(self, archive: tarfile.TarFile, name: str, source: Path) -> None:
        files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
        for file in files:
            self.add(archive, str(Path(name) / file.relative_to(source)), file.read_bytes())


def pack(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True)
    packer = Packer(out, arguments.part_bytes)
    with (
        lzma.LZMAFile(packer, "wb", preset=arguments.preset) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name in SCRIPTS:
            packer.add(archive, name, (HERE / name).read_bytes())
        for path in FROM_REPOSITORY:
            packer.add_tree(archive, f"repository/{path}", ROOT / path)
        if arguments.program:
            packer.add(archive, "discl-pipe", arguments.program.read_bytes(), 0o755)
        for name, contents in libraries(arguments.onnxruntime).items():
            if "_cuda" in name:
                contents, kept, dropped = trim.trimmed(contents, arguments.gpu)
                print(f"{name}: {kept / 1e6:.1f} MB of GPU code kept, {dropped / 1e6:.1f} MB dropped", flush=True)
            packer.add(archive, f"onnxruntime/{name}", contents, 0o755)
        for name, folder in arguments.model:
            packer.add_tree(archive, f"models/{name}", folder)
    packer.end_part(len(packer.waiting))
    manifest = {"parts": packer.parts, "models": [name for name, _ in arguments.model], "files": packer.files}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.copy(HERE / "check.py", out)
    size = sum(int(part["bytes"]) for part in packer.parts)
    print(f"{out}: {len(packer.parts)} parts, {size / 1e6:.1f} MB, {len(packer.files)} files")


def named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not (Path(folder) / "model_index.json").is_file():
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=DIR with a model directory")
    return name, Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--program", type=Path, help="discl-pipe, a release build; or name it to check.py")
    parser.add_argument("--onnxruntime", type=Path, required=True, help="a wheel, a folder or a library")
    parser.add_argument("--model", type=named_folder, action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--gpu", type=int, default=90, help="compute capability without its point; 90 is Hopper's")
    parser.add_argument("--part-bytes", type=int, default=PART_BYTES)
    parser.add_argument("--preset", type=int, default=3, choices=range(10), help="of xz")
    try:
        pack(parser.parse_args())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
