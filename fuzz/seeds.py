"""Writes the seeds of every fuzz target, from the repository's own files: `python3 fuzz/seeds.py` in the root.

Nothing but the standard library is used. Seeds go to fuzz/seeds/TARGET, which git ignores; fuzz/corpus/TARGET has what
was found on top, and seeds that Rust has written, and is committed.
"""

import hashlib
import io
import json
import re
import struct
import tarfile
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
    # weights in a file of their own, which is there: the target runs in the root
    model = (ROOT / "tests/fixtures/onnx/external/scalar_timestep.onnx").read_bytes()
    put("onnx", model.replace(b"weights", b"LICENSE"))
    models = [*ROOT.glob("models/digits/**/*.onnx"), *ROOT.glob("tests/fixtures/pipelines/*/*/*.onnx")]
    for path in models:
        small = skeleton(path.read_bytes())
        if len(small) <= 4 * LARGEST:
            put("onnx", small)


def images():
    for path in files("tests/fixtures/imaging/*.*", "tests/fixtures/clip/*.*"):
        if path.suffix in (".png", ".jpg", ".webp"):
            put("image", path.read_bytes())
    row = b"\0" + b"\x10\x20\x30" * 4
    text = b"Comment\0\0" + zlib.compress(b"x" * 100_000)
    profile = b"icc\0\0" + zlib.compress(b"\0" * 100_000)
    exif = b"II*\0\x08\0\0\0\0\0"
    for chunks in ([(b"zTXt", text)], [(b"iCCP", profile)], [(b"eXIf", exif)], [(b"acTL", struct.pack(">II", 99, 0))]):
        put("image", png(4, 4, chunks, row * 4))
    put("image", png(60_000, 60_000, [], b"\0" * 1000))
    for magic in (b"GIF89a", b"BM", b"II*\0", b"%PDF-1.7", b"PK\x03\x04", b"<html>", b'{"a": 1}', b"hello\n"):
        put("image", magic)


def pipelines():
    texts = [path.read_text() for path in files("pipelines/*.toml")]
    tests = (ROOT / "src/config/tests/mod.rs").read_text()
    texts += re.findall(r'const FULL: &str = r##"(.*?)"##;', tests, re.S)
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


def tar(members, kind=tarfile.USTAR_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    # without the empty blocks at its end, of which one is enough
    data = out.getvalue().rstrip(b"\0")
    return data + bytes(-len(data) % 512 + 512)


def listings():
    """The first byte chooses the parser, see src/source/fuzzing.rs."""

    def seed(choice, *parts):
        put("listing", bytes([choice]) + b"\n=====\n".join(p if isinstance(p, bytes) else p.encode() for p in parts))

    seed(0, "a/n01/x_1.JPEG 0\na/n02/x 2.png\t1\r\n\n./b.jpg 7\n", "\ufeffval/y.webp 3\n../z.jpg 1\nC:/z.jpg 1\n")
    seed(0, "a.jpg 0\na.jpg 1\n", "a.jpg 0\nb.jpg cat\nb.jpg -1\nb.jpg\n/b.jpg 1\n")
    seed(1, "path,label,split\na.jpg,0,train\nb.jpg,1,test\nc.jpg,0,val\n")
    seed(1, 'split,x,label,path\n0,"a\nb",cat,"d/e.jpg"\r\ntest,,dog,f.jpg\n\n"train",1,"a, b",g.jpg\n')
    seed(2, "path,label\na.jpg,cat\nb.jpg,dog\n", 'label,path\n"the ""cat""",c.jpg\n,d.jpg\ne\n')
    seed(3, "file_name,label,text\n0001.png,0,hello\nsub/0002.png,1,\n", "file_name,label\n0001.png,1\n")
    line = json.dumps({"file_name": "0001.png", "label": 0, "text": "a"})
    seed(4, line + "\n" + line.replace("0001", "2").replace(" 0,", ' "cat",'), '{"label": 1}\n[]\n')
    sample = [("s1.jpg", b"a pixel"), ("s1.cls", b"0"), ("d/s2.cls", b"1"), ("d/s2.seg.png", b"x"), ("d/s2.png", b"y")]
    objects = [("s1.jpg", b"a pixel"), ("s1.json", b'{"label": "cat"}'), ("s2.webp", b""), ("s2.json", b'{"label": 3}')]
    long = [("a/" * 60 + "x.jpg", b"a pixel"), ("a/" * 60 + "x.cls", b"2")]
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        seed(6, tar(sample, kind), tar(long, kind))
        seed(7, tar(objects, kind))
    seed(6, tar([("../s1.jpg", b"p"), ("./s1.jpg", b"p"), ("s1.cls", b"x"), ("s1.png", b"p"), ("s1.cls", b"1")]))
    seed(8, "cat\ndog\n")
    seed(8, "\ufeffthe cat\r\ncat\ncat\n\n")
    seed(9, 'y,category_id,name\n1,3,"cow, wild"\n0,0,empty\n99999,5,bear\n99999,6,wolf\n')
    seed(9, "label,name\n1,b\n0,a")
    seed(10, '["cat", "dog"]')
    seed(10, '{"0": "cat", "1": "dog", "01": "bird"}')
    seed(11, '{"cat": ["a red one"], "dog": ["a wet one", "an old one"]}')
    lines = [{"class_name": "cat", "texts": ["a"], "model": "m", "date": "2026-11-23", "request": "r"}]
    lines.append({"class_name": "dog", "texts": ["a", "b"]})
    seed(12, "\n\n".join(json.dumps(line) for line in lines))
    seed(13, '{"panthera onca": "jaguar", "felis catus": " "}')
    for pattern in ("t-{000..146}.tar", "a/{0..9}/b{00..12}.tar", "{0..99999}", "a.tar", "{1..11}{1..11}", "{5..2}{"):
        seed(14, pattern)
    for path in files("data/**/*.json", "data/**/*.csv", "data/**/*.txt"):
        for choice in {".json": (10, 11, 13), ".csv": (1, 2, 9), ".txt": (0, 8)}[path.suffix]:
            seed(choice, path.read_bytes())


def dictionary(name, words):
    def escaped(character):
        plain = character.isascii() and (character.isalnum() or character in "_-. []")
        return character if plain else "".join(f"\\x{byte:02x}" for byte in character.encode())

    escaped_words = {"".join(map(escaped, word)) for word in words if word}
    (ROOT / "fuzz/seeds" / f"{name}.dict").write_text("".join(f'"{word}"\n' for word in sorted(escaped_words)))


# What reads JSON, whose keys a mutation would not find.
JSON_READERS = (
    "src/lake/*.rs",
    "src/models/diffusion/schedulers/*.rs",
    "src/models/hub/record.rs",
    "src/models/preprocess/*.rs",
    "src/models/tokenizer.rs",
)


def dictionaries():
    """Words that a mutation would not find: keys, sections and choices, out of the sources."""
    sources = "".join(path.read_text() for path in files("src/config/*.rs"))
    words = set(re.findall(r'"([a-z][a-z_0-9]{2,40})"', sources))
    toml = {"--set ", '"""', "'''", "[[", "]]", "inf", "nan", "0x", "1e308", "-0.0", "1979-05-27T07:32:00Z", "\\u0000"}
    dictionary("pipeline", words | {f"[{word}]" for word in words} | toml)
    names = {"path", "label", "split", "train", "test", "name", "file_name", "class_name", "texts", "cls", "json"}
    places = {"../", "./", "/", "C:", "\\", "..", "{0..9}", "{000..146}", ".jpg", ".png", ".cls", ".json", "ustar", "#"}
    others = {"\n=====\n", '""', '"', ",", "\r\n", "\t", "\x00", "\ufeff", "9223372036854775807", "-1", "null"}
    dictionary("listing", names | places | others)
    sources = "".join(path.read_text() for path in files(*JSON_READERS))
    numbers = {"1e308", "-1", "4294967295", "1e-45", "null", "true", "false", "0.0", "100000"}
    dictionary("json", set(re.findall(r'"([A-Za-z_][A-Za-z_0-9]{2,40})"', sources)) | numbers)


if __name__ == "__main__":
    onnx()
    images()
    pipelines()
    configurations()
    listings()
    dictionaries()
    for folder in sorted((ROOT / "fuzz/seeds").iterdir()):
        if folder.is_dir():
            sizes = [path.stat().st_size for path in folder.iterdir()]
            print(f"{folder.name}: {len(sizes)} seeds, {sum(sizes)} bytes")
