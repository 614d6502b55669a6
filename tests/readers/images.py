"""Images as people have them, and what every reader has to find in an export of them.

`python images.py make DIR` writes DIR/data, DIR/reference (the pixels as PNG) and DIR/outcomes.json: for each file
its digest, and whether it is `kept` (stored unchanged), `converted` or `rejected`. `python images.py check DIR EXPORTS` opens the exports `webdataset`,
`imagefolder` and `parquet` with Pillow and `datasets`, and compares with DIR/reference; DIR/samples.json has the path and
`real` for each sample.
"""

import hashlib
import io
import json
import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory()
OFFLINE = dict.fromkeys(["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"], "1")
os.environ.update(OFFLINE, HF_HOME=SCRATCH.name)

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import webdataset  # noqa: E402
from PIL import Image, ImageOps, PngImagePlugin  # noqa: E402

WIDTH, HEIGHT = 40, 24


def photo() -> Image.Image:
    """Every corner differs, so that no turn or flip goes unseen."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([40 + 5 * x, 30 + 7 * y, 200 - 3 * x - 2 * y], -1).clip(0, 255).astype("uint8")
    pixels[:6, :9] = (250, 20, 20)
    return Image.fromarray(pixels)


PHOTO = photo()


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def chunk(name: bytes, data: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ crc)


def png(*chunks: bytes, samples: bytes | None = None, depth: int = 8, kind: int = 2, crc: int = 0) -> bytes:
    """A PNG with these chunks before its pixels, which are the photo's or these compressed rows."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(PHOTO))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows) if samples is None else samples, crc)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def transparent() -> Image.Image:
    """The photo in the middle; around it colors that no one may see."""
    pixels = np.asarray(PHOTO.convert("RGBA")).copy()
    pixels[..., 3] = 0
    pixels[4:20, 6:34, 3] = 255
    pixels[4:20, 30:34, 3] = 128
    return Image.fromarray(pixels)


def on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def broken_exif() -> bytes:
    """Pillow's `getexif` raises on what is not TIFF."""
    data = b"Exif\0\0no TIFF header, and yet some bytes"
    jpeg = encode(PHOTO, "JPEG", quality=95)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def raw_profile(orientation: int) -> bytes:
    """EXIF as ImageMagick keeps it in a text."""
    block = exif(orientation).tobytes()
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    return png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))


def kept() -> dict[str, bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "a camera")
    text.add_itxt("Title", "Größe", zip=True)
    return {
        "rgb.png": encode(PHOTO, "PNG"),
        "text.png": encode(PHOTO, "PNG", pnginfo=text, dpi=(72, 72), icc_profile=b"a profile"),
        "private.png": png(chunk(b"prVt", b"known to one tool")),
        "rgb.jpg": encode(PHOTO, "JPEG", quality=95),
        "progressive.jpg": encode(PHOTO, "JPEG", quality=95, progressive=True, comment="a comment"),
        "exif1.jpg": encode(PHOTO, "JPEG", quality=95, exif=exif(1)),
        "exif99.jpg": encode(PHOTO, "JPEG", quality=95, exif=exif(99)),
        "lossless.webp": encode(PHOTO, "WEBP", lossless=True),
        "lossy.webp": encode(PHOTO, "WEBP", quality=95, exif=exif(1)),
    }


def converted() -> dict[str, tuple[bytes, Image.Image]]:
    """Each file with its pixels."""
    grey, clear, turned = PHOTO.convert("L"), transparent(), PHOTO.transpose(Image.Transpose.ROTATE_180)
    wide, all_frames = np.asarray(PHOTO).astype(">u2") * 257, dict(save_all=True, append_images=[turned], duration=100)
    rgb16 = b"".join(b"\0" + row.tobytes() for row in wide)
    palette, bits = PHOTO.quantize(16), PHOTO.convert("1")
    as_gif = encode(palette, "GIF")
    files = {f"exif{turn}.jpg": encode(PHOTO, "JPEG", quality=95, exif=exif(turn)) for turn in range(2, 9)}
    files |= {
        "exif6.png": encode(PHOTO, "PNG", exif=exif(6)),
        "exif8.webp": encode(PHOTO, "WEBP", lossless=True, exif=exif(8)),
        "xmp6.jpg": encode(PHOTO, "JPEG", quality=95, xmp=xmp(6)),
        "xmp6.png": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))),
        "xmp6.webp": encode(PHOTO, "WEBP", lossless=True, xmp=xmp(6)),
        "profile6.png": raw_profile(6),
        "orientation6.tif": encode(PHOTO, "TIFF", tiffinfo={0x0112: 6}),
        "grey.jpg": encode(grey, "JPEG", quality=95),
        "grey.png": encode(grey, "PNG"),
        "bits.png": encode(bits, "PNG"),
        "cmyk.jpg": encode(PHOTO.convert("CMYK"), "JPEG", quality=95),
        "palette.png": encode(palette, "PNG"),
        "animated.png": encode(PHOTO, "PNG", **all_frames),
        "animated.webp": encode(PHOTO, "WEBP", lossless=True, **all_frames),
        "still.gif": as_gif,
        "animated.gif": encode(palette, "GIF", save_all=True, append_images=[turned.quantize(16)], duration=100),
        "rgb.bmp": encode(PHOTO, "BMP"),
        "rgb.tif": encode(PHOTO, "TIFF", compression="tiff_lzw"),
        "pages.tif": encode(PHOTO, "TIFF", save_all=True, append_images=[turned]),
    }
    pixels = {name: (data, decode(data)) for name, data in files.items()}
    unreadable = {
        "long_text.png": png(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (8 << 20)))),
        "long_unicode_text.png": png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * (8 << 20)))),
        "many_texts.png": png(*[chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (1 << 20)))] * 65),
        "long_profile.png": png(chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"a" * (8 << 20)))),
        "text_crc.png": png(chunk(b"tEXt", b"Comment\0hello", crc=1)),
        "private_crc.png": png(chunk(b"prVt", b"known to one tool", crc=1)),
        "short_resolution.png": png(chunk(b"pHYs", b"\0")),
    }
    exact = {
        **{name: (data, PHOTO) for name, data in unreadable.items()},
        "broken_exif.jpg": (broken_exif(), decode(encode(PHOTO, "JPEG", quality=95))),
        "grey16.png": (encode(Image.fromarray(np.asarray(grey).astype("uint16") * 257), "PNG"), grey.convert("RGB")),
        "rgb16.png": (png(samples=zlib.compress(rgb16), depth=16), PHOTO),
        "alpha.png": (encode(clear, "PNG"), on_white(clear)),
        "alpha.webp": (encode(clear, "WEBP", lossless=True, exact=True), on_white(clear)),
        "grey_alpha.png": (encode(clear.convert("LA"), "PNG"), on_white(clear.convert("LA"))),
        "key.png": (encode(PHOTO, "PNG", transparency=(250, 20, 20)), on_key(PHOTO)),
        "alpha.tif": (encode(clear, "TIFF"), on_white(clear)),
    }
    for name, data in unreadable.items():
        try:
            Image.open(io.BytesIO(data)).load()
        except Exception:
            continue
        raise AssertionError(f"{name}: Pillow reads it")
    return pixels | exact


def on_key(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).copy()
    pixels[(pixels == (250, 20, 20)).all(-1)] = 255
    return Image.fromarray(pixels)


def rejected() -> dict[str, bytes]:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(PHOTO)))
    whole = {form: encode(PHOTO, form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}
    return {
        "adler.png": png(samples=rows[:-4] + bytes(byte ^ 1 for byte in rows[-4:])),
        "pixels_crc.png": png(crc=1),
        "empty.png": b"",
        "page.jpg": b"<!DOCTYPE html><html>404</html>",
        "float.tif": encode(Image.fromarray(np.asarray(PHOTO.convert("L")).astype("float32")), "TIFF"),
        **{f"cut.{form.lower()}": data[: len(data) // 2] for form, data in whole.items()},
    }


def make(folder: Path) -> None:
    outcomes = {}
    for sub in ("data", "reference"):
        (folder / sub).mkdir(parents=True)

    def put(name: str, data: bytes, outcome: str, pixels: Image.Image | None = None) -> None:
        outcomes[name] = {"outcome": outcome, "digest": hashlib.sha256(data).hexdigest()}
        (folder / "data" / name).write_bytes(data)
        if pixels is not None:
            pixels.save(folder / "reference" / f"{name}.png")

    for name, data in kept().items():
        put(name, data, "kept", decode(data))
    for name, (data, pixels) in converted().items():
        put(name, data, "converted", pixels)
    for name, data in rejected().items():
        put(name, data, "rejected")
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


def read(exports: Path) -> dict[str, list[tuple[str, Image.Image]]]:
    """For each reader the rows: the sample, and what the reader gives."""
    found: dict[str, list[tuple[str, Image.Image]]] = {}
    urls = sorted(map(str, (exports / "webdataset").glob("*.tar")))
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        about, [data] = json.loads(sample["json"]), [sample[key] for key in ("png", "jpg", "webp") if key in sample]
        found.setdefault("Pillow", []).append((about["sample_id"], Image.open(io.BytesIO(data))))
    for form in ("imagefolder", "parquet"):
        for folder in sorted((exports / form).glob("epoch_*")):
            source = {"data_dir": str(folder)} if form == "imagefolder" else {"data_files": f"{folder}/*.parquet"}
            rows = datasets.load_dataset(form, **source, split="train", cache_dir=SCRATCH.name)
            found.setdefault(form, []).extend((row["sample_id"], row["image"]) for row in rows)
    return found


def check(folder: Path, exports: Path) -> None:
    samples = {row["sample_id"]: row for row in json.loads((folder / "samples.json").read_text())}
    outcomes = json.loads((folder / "outcomes.json").read_text())
    wanted = {name for name, file in outcomes.items() if file["outcome"] != "rejected"}
    for reader, rows in read(exports).items():
        seen = {(samples[sample]["path"], samples[sample]["real"]) for sample, _ in rows}
        for real in (True, False):
            missing = wanted - {name for name, kind in seen if kind is real}
            assert not missing, f"{reader}: no {'real' if real else 'synthetic'} image of {sorted(missing)}"
        for sample, image in rows:
            name, real = samples[sample]["path"], samples[sample]["real"]
            reference = Image.open(folder / "reference" / f"{name}.png")
            what = f"{reader}, {name}, {'real' if real else 'synthetic'}"
            assert image.mode == "RGB", f"{what}: {image.mode}"
            assert image.size == reference.size, f"{what}: {image.size}, not {reference.size}"
            assert image.getexif().get(0x0112, 1) in (1, 99), f"{what}: an orientation"
            if real:
                difference = np.abs(np.asarray(image).astype(int) - np.asarray(reference)).max()
                # Decoders of JPEG, and conversions of CMYK, differ by some steps; alpha is rounded by one.
                allowed = 24 if name == "cmyk.jpg" else 8 if name.endswith(("jpg", "lossy.webp")) else 1
                assert difference <= allowed, f"{what}: off by {difference}"
        print(f"ok      {reader}: {len(rows)} rows")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "check": check}[command](*map(Path, arguments))
