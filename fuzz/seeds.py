"""Writes the seeds of every fuzz target, from the repository's own files: `python3 fuzz/seeds.py` in the root.

Nothing but the standard library is used. Seeds go to fuzz/seeds/TARGET, which git ignores; fuzz/corpus/TARGET has what
was found on top and is committed.
"""

import hashlib
import json
import re
import struct
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Larger seeds slow every mutation down.
LARGEST = 24 * 1024


def put(target, data):
    folder = ROOT / "fuzz/seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def files(*patterns):
    for pattern in patterns:
        yield from sorted(path for path in ROOT.glob(pattern) if path.stat().st_size <= LARGEST)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def fields(message):
    """Number, wire type and contents of each field of a protobuf message."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, kind, number()
            continue
        length = number() if kind == 2 else {1: 8, 5: 4}[kind]
        yield tag >> 3, kind, message[at : at + length]
        at += length


def skeleton(model):
    """An ONNX model whose weights are empty: small, and with every name and shape of the real one."""

    def rewrite(message, change):
        out = b""
        for number, kind, contents in fields(message):
            if kind == 0:
                out += varint(number << 3) + varint(contents)
                continue
            contents = change(number, contents)
            if contents is not None:
                length = varint(len(contents)) if kind == 2 else b""
                out += varint(number << 3 | kind) + length + contents
        return out

    def graph(number, contents):
        if number == 5:  # an initializer without raw_data
            return rewrite(contents, lambda number, contents: None if number == 9 else contents)
        if number == 1:  # a node without attributes
            return rewrite(contents, lambda number, contents: None if number == 5 else contents)
        return None if number == 13 else contents

    return rewrite(model, lambda number, contents: rewrite(contents, graph) if number == 7 else contents)


def png(width, height, chunks, scanlines):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(scanlines))
    extra = b"".join(chunk(kind, data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def onnx():
    for path in files("tests/fixtures/onnx/**/*.onnx", "tests/fixtures/classifier/*.onnx"):
        put("onnx", path.read_bytes())
    models = [*ROOT.glob("models/digits/**/*.onnx"), *ROOT.glob("tests/fixtures/pipelines/*/*/*.onnx")]
    for path in models:
        small = skeleton(path.read_bytes())
        if len(small) <= 4 * LARGEST:
            put("onnx", small)


def pictures():
    for path in files("tests/fixtures/imaging/*.*", "tests/fixtures/clip/*.*"):
        if path.suffix in (".png", ".jpg", ".webp"):
            put("picture", path.read_bytes())
    row = b"\0" + b"\x10\x20\x30" * 4
    text = b"Comment\0\0" + zlib.compress(b"x" * 100_000)
    profile = b"icc\0\0" + zlib.compress(b"\0" * 100_000)
    exif = b"II*\0\x08\0\0\0\0\0"
    for chunks in ([(b"zTXt", text)], [(b"iCCP", profile)], [(b"eXIf", exif)], [(b"acTL", struct.pack(">II", 99, 0))]):
        put("picture", png(4, 4, chunks, row * 4))
    put("picture", png(60_000, 60_000, [], b"\0" * 1000))
    for magic in (b"GIF89a", b"BM", b"II*\0", b"%PDF-1.7", b"PK\x03\x04", b"<html>", b'{"a": 1}', b"hello\n"):
        put("picture", magic)


def pipelines():
    texts = [path.read_text() for path in files("pipelines/*.toml")]
    tests = (ROOT / "src/config/tests.rs").read_text()
    texts += re.findall(r'const FULL: &str = r#"(.*?)"#;', tests, re.S)
    for text in texts:
        put("pipeline", text.encode())
        # each section alone, so that mutations meet few lines
        for part in re.split(r"\n(?=\[)", text):
            put("pipeline", part.encode())
        edits = "\n".join(
            ["--set spectrum.timesteps=3", "--set seed=x", "--set spectrum.seeds=[1, 2]", '--set name="a"', text]
        )
        put("pipeline", edits.encode())


def configurations():
    for path in files("tests/fixtures/**/preprocessor*.json", "models/**/preprocessor_config.json"):
        text = path.read_text()
        put("preprocess", text.encode())
        small = re.sub(r"\b224\b", "8", text)
        put("preprocess", small.encode())
        put("preprocess", small.replace("CLIPFeatureExtractor", "BitImageProcessor").encode())
    cases = json.loads((ROOT / "tests/fixtures/schedulers/schedulers.json").read_text())["cases"]
    configs = {json.dumps(case["config"], sort_keys=True) for case in cases}
    for number, text in enumerate(sorted(configs)):
        for choice in (7, 8 + number % 8, 16 + number % 8, 24 + 7):
            put("scheduler", bytes([choice]) + text.encode())
    for path in files("models/digits/scheduler/*.json", "tests/fixtures/pipelines/*/scheduler/*.json"):
        put("scheduler", b"\x0f" + path.read_bytes())


def dictionary(name, words):
    escaped = {"".join(c if c.isalnum() or c in "_-. []" else f"\\x{ord(c):02x}" for c in word) for word in words}
    (ROOT / "fuzz/seeds" / f"{name}.dict").write_text("".join(f'"{word}"\n' for word in sorted(escaped) if word))


def dictionaries():
    """Words that a mutation would not find: keys, sections and choices, out of the sources."""
    sources = "".join(path.read_text() for path in files("src/config/*.rs"))
    words = set(re.findall(r'"([a-z][a-z_0-9]{2,40})"', sources))
    toml = {"--set ", '"""', "'''", "[[", "]]", "inf", "nan", "0x", "1e308", "-0.0", "1979-05-27T07:32:00Z", "\\u0000"}
    dictionary("pipeline", words | {f"[{word}]" for word in words} | toml)
    sources = "".join(path.read_text() for path in files("src/diffusion/schedulers/*.rs", "src/imaging/preprocess.rs"))
    numbers = {"1e308", "-1", "4294967295", "1e-45", "null", "true", "false", "0.0", "100000"}
    dictionary("json", set(re.findall(r'"([A-Za-z_][A-Za-z_0-9]{2,40})"', sources)) | numbers)


if __name__ == "__main__":
    onnx()
    pictures()
    pipelines()
    configurations()
    dictionaries()
    for folder in sorted((ROOT / "fuzz/seeds").iterdir()):
        if folder.is_dir():
            sizes = [path.stat().st_size for path in folder.iterdir()]
            print(f"{folder.name}: {len(sizes)} seeds, {sum(sizes)} bytes")
