"""Checks `discl-pipe` on a GPU, without network, from what `prepare.py` packed. numpy is needed, nothing else.

    python3 check.py PARTS OUT                                # on a machine with an NVIDIA GPU
    python3 check.py PARTS OUT --device cpu --scale 0.1       # on any, small: shows that the check itself works

PARTS is the folder with `manifest.json`, OUT a new folder. Each part of the check has its own time limit, and the ones
after it run whatever it found. `OUT/results.jsonl` has a line for each part as soon as it ends, and a table is printed
at the end. A part is `passed`, `failed`, or `not run` with the reason, which never counts as passed. Exit code 1 if any
failed.
"""

import argparse
import base64
import hashlib
import importlib.util
import json
import lzma
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = ["sd1", "sd2", "sdxl_base", "sdxl_refiner"]
"""Pipelines whose images diffusers recorded, each with older graphs and with graphs by opset 23."""
CASES = 2
"""Recorded cases of each of them; those that have `strength` 0.5 come first."""
SMALL = [
    "hard_samples.max_class_count=10",
    "spectrum.image_guidance=[10,50,90]",
    "spectrum.seeds=[10]",
    "spectrum.timesteps=10",
    "filter.max_attempts=2",
    "curriculum.epochs=5",
    "curriculum.curriculum_epochs=4",
    "curriculum.max_repeats=1000",
]
"""Edits that leave 36 images of the digits."""
PIPELINE = """\
name = "check"
seed = 0

[lake]
root = "lake"

[source]
kind = "imagefolder"
root = {data}
splits = {{ train = "." }}

[models]
diffusion = {model}
clip      = {clip}

[hard_samples]
max_class_count = 100000

[prompts]
generation = "a photo of a {{class}}"
filter     = "a photo of a {{class}}"

[spectrum]
image_guidance = [50]
seeds          = {seeds}
timesteps      = {timesteps}
guidance_scale = {guidance}
noise          = "torch"
{more}

[filter]
min_text_similarity = -1.0
max_attempts        = 1

[cuda]
tf32 = {tf32}
"""


class Failed(Exception):
    """What is checked does not hold; the message says what was found."""


class NotRun(Exception):
    """This machine or this build cannot be asked; the message says what is missing."""


@dataclass(frozen=True)
class Outcome:
    """How a part of the check ended."""

    part: str
    status: str
    seconds: float
    limit: float
    reason: str
    figures: dict[str, Any]


# --- what parts need --------------------------------------------------------------------------------------


class Check:
    """The unpacked files, the options, and the time that the part which runs has left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.files = self.out / "files"
        self.repository = self.files / "repository"
        self.program: Path = options.program or self.files / "discl-pipe"
        self.deadline = math.inf
        self.on_gpu = options.device != "cpu"

    @property
    def library(self) -> Path:
        """ONNX Runtime's library among those that were packed."""
        return next(iter(sorted((self.files / "onnxruntime").glob("libonnxruntime.so*"))))

    @property
    def models(self) -> list[Path]:
        folder = self.files / "models"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @property
    def pixels(self) -> int:
        """The side of an image: 512, or with a scale a multiple of 64."""
        return max(1, round(512 * self.options.scale / 64)) * 64

    def work(self, name: str) -> Path:
        folder = self.out / "work" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def needs_gpu(self) -> None:
        if not self.on_gpu:
            raise NotRun("no GPU")

    def call(self, command: list[Any]) -> str:
        """What a command prints, within the time of the part. Its whole group of processes ends with it."""
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=self.repository,
        )
        try:
            said, errors = process.communicate(timeout=max(0.1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed(f"out of time in `{' '.join(words)[-200:]}`") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode != 0:
            raise Failed(f"exit code {process.returncode}: {(errors.strip() or said.strip())[-1000:]}")
        return said

    def run(self, *words: Any, device: str | None = None) -> str:
        """What `discl-pipe` prints."""
        runtime = ["--onnxruntime", self.library]
        if words[0] != "doctor":
            runtime += ["--device", device or self.options.device]
        return self.call([self.program, *words, *runtime, "--format", "json"])


def set_to(*edits: str) -> list[str]:
    return [word for edit in edits for word in ["--set", edit]]


def text(value: object) -> str:
    """A value as TOML."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def write_pipeline(folder: Path, data: Path, model: Path, clip: Path, **settings: Any) -> Path:
    more = settings.pop("more", "")
    known = {"seeds": [1], "timesteps": 50, "guidance": 7.5, "tf32": False} | settings
    toml = folder / "check.toml"
    toml.write_text(
        PIPELINE.format(
            data=text(data), model=text(model), clip=text(clip), more=more, **{k: text(v) for k, v in known.items()}
        )
    )
    return toml


def encode_png(image: np.ndarray) -> bytes:
    """8-bit RGB [height, width, 3] as PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def decode_png(file: bytes) -> np.ndarray:
    """The pixels of an 8-bit RGB PNG without interlacing, as `discl-pipe` writes it."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", file, 16)
    if (depth, colour, interlaced) != (8, 2, 0):
        raise Failed(f"a PNG of depth {depth} and colour type {colour}, where 8-bit RGB was expected")
    packed, at = b"", 8
    while at < len(file):
        (length,) = struct.unpack_from(">I", file, at)
        if file[at + 4 : at + 8] == b"IDAT":
            packed += file[at + 8 : at + 8 + length]
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 3 * width)
    made = np.zeros((height + 1, 3 * (width + 1)), np.int64)  # A row above and a pixel to the left, of zeros.
    for y, (kind, *values) in enumerate(rows.tolist(), 1):
        above, row = made[y - 1], made[y]
        for x, value in enumerate(values, 3):
            row[x] = (value + predicted(kind, int(row[x - 3]), int(above[x]), int(above[x - 3]))) & 255
    return made[1:, 3:].reshape(height, width, 3).astype(np.uint8)


def predicted(kind: int, left: int, up: int, corner: int) -> int:
    """What a filter of PNG predicts a byte to be."""
    if kind == 4:
        guess = left + up - corner
        return min([left, up, corner], key=lambda value: abs(guess - value))
    return [0, left, up, (left + up) // 2][kind]


def decoded(base64_text: str) -> np.ndarray:
    return decode_png(base64.b64decode(base64_text + "=" * (-len(base64_text) % 4)))


# --- parts ------------------------------------------------------------------------------------------------


def doctor(check: Check) -> dict[str, Any]:
    """The libraries are found and work."""
    said = {entry["what"]: entry for entry in json.loads(check.run("doctor"))}
    for what in ["onnxruntime", "device"]:
        if not said[what]["works"]:
            raise Failed(f"{what}: {said[what]['found']}")
    if check.on_gpu and "cuda" not in said["device"]["found"]:
        raise Failed(f"no GPU is used: {said['device']['found']}")
    return {"device": said["device"]["found"]}


def ceilings(check: Check) -> dict[str, Any]:
    """What the GPU reaches in large products and copies, by torch, to compare the rest with."""
    check.needs_gpu()
    name = check.call(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]).strip()
    return {
        "gpu": name,
        **json.loads(check.call([sys.executable, check.files / "peer.py", "ceilings"]).splitlines()[-1]),
    }


def recorded_model(check: Check, name: str, newer: bool, folder: Path) -> Path:
    """A recorded pipeline, with its graphs by opset 23 laid over the older ones, which have the weights."""
    fixtures, model = check.repository / "tests/fixtures", folder / "model"
    shutil.copytree(fixtures / "pipelines" / name, model)
    if newer:
        for part in (fixtures / "opset23" / name).iterdir():
            (model / part.name / "model.onnx").rename(model / part.name / "model.onnx_data")
            shutil.copytree(part, model / part.name, dirs_exist_ok=True)
    return model


def recorded_case(check: Check, model: Path, folder: Path, golden: dict[str, Any], case: dict[str, Any]) -> float:
    """The share of values within 2 of 255 of the image that diffusers made."""
    place = folder / case["name"]
    shutil.copytree(model, place / "model")
    # Only Python's JSON has infinities, and diffusers' own files contain them.
    scheduler = {key: None if value == -math.inf else value for key, value in case["scheduler"].items()}
    (place / "model/scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    negative = case["negative_prompt"]
    toml = write_pipeline(
        place,
        folder / "data",
        place / "model",
        check.repository / "models/digits/clip",
        timesteps=case["num_inference_steps"],
        guidance=float(case["guidance_scale"]),
        more="" if negative is None else f"negative_prompt = {text(negative)}",
    )
    prompt, guidance = case["prompt"].replace("'", "''"), 100 - round(100 * float(case["strength"]))
    (place / "query.sql").write_text(
        f"SELECT encode(img2img(p.image, '{prompt}', {guidance}, {case['seed']})['bytes'], 'base64') AS png "
        f"FROM images i JOIN pixels p USING (pixel_id) WHERE i.path = 'real/{case['source']}.png'"
    )
    (row,) = json.loads(
        check.run("sql", toml, "--lake", folder / "lake", "--model-batch", 2, "--file", place / "query.sql")
    )
    if not row["png"]:
        raise Failed(f"{case['name']}: no image")
    image = case["image"]
    expected = np.frombuffer(base64.b64decode(image["rgb"]), np.uint8).reshape(image["height"], image["width"], 3)
    actual = decoded(row["png"])
    if actual.shape != expected.shape:
        raise Failed(f"{case['name']}: {actual.shape} where diffusers made {expected.shape}")
    return float((np.abs(actual.astype(int) - expected) <= 2).mean())


def recorded(check: Check) -> dict[str, Any]:
    """Two images of each recorded pipeline equal those of diffusers, with older graphs and with those by opset 23."""
    work, shares = check.work("recorded"), dict[str, list[float]]()

    def one(name: str, newer: bool) -> None:
        label = f"{name}, opset 23" if newer else name
        folder = work / label
        model = recorded_model(check, name, newer, folder)
        golden = json.loads((model / "golden.json").read_text())
        (folder / "data/real").mkdir(parents=True)
        for source, image in golden["sources"].items():
            (folder / f"data/real/{source}.png").write_bytes(base64.b64decode(image["png"]))
        toml = write_pipeline(folder, folder / "data", model, check.repository / "models/digits/clip")
        check.run("run", toml, "--lake", folder / "lake", "--until", "images")
        cases = sorted(golden["cases"], key=lambda case: case["strength"] != "0.5")[:CASES]
        shares[label] = [recorded_case(check, model, folder, golden, case) for case in cases]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(one, name, newer) for name in RECORDED for newer in [False, True]]:
            done.result()
    worst = min(shares, key=lambda label: min(shares[label]))
    share = min(shares[worst])
    if share < 0.999:
        raise Failed(f"{worst}: only {share:.2%} of the values are within 2 of 255 of diffusers' image")
    return {"images": sum(map(len, shares.values())), "smallest share within 2 of 255": round(share, 5)}


DIGITS = "SELECT sample_id, image_info(image)['digest'] AS digest FROM spectrum ORDER BY sample_id"
IMAGES = "SELECT encode(image['bytes'], 'base64') AS png FROM spectrum ORDER BY sample_id"


def digits(check: Check) -> dict[str, Any]:
    """Two runs of the digits give the same images, byte for byte, and nearly those of the CPU."""
    toml, work = "pipelines/digits_lt.toml", check.work("digits")
    edits = set_to(*(SMALL if check.options.scale < 1 else []))

    def run(lake: str, device: str, *more: Any) -> list[dict[str, Any]]:
        place = ["--lake", work / lake, *edits]
        check.run("run", toml, *place, *more, device=device)
        check.run("verify", toml, *place, "--deep", device=device)
        return json.loads(check.run("sql", toml, DIGITS, *place, device=device))

    first = run("first", check.options.device)
    if run("second", check.options.device, "--units-in-flight", 1) != first:
        raise Failed("two runs on one device differ")
    figures: dict[str, Any] = {"images": len(first)}
    if check.on_gpu:
        on_cpu = run("cpu", "cpu")
        if [row["sample_id"] for row in on_cpu] != [row["sample_id"] for row in first]:
            raise Failed("the CPU makes other samples")
        pairs = [
            [
                decoded(row["png"]).astype(int)
                for row in json.loads(check.run("sql", toml, IMAGES, "--lake", work / lake, *edits))
            ]
            for lake in ["first", "cpu"]
        ]
        figures["largest difference to the CPU"] = max(int(np.abs(a - b).max()) for a, b in zip(*pairs, strict=True))
        if figures["largest difference to the CPU"] > 3:
            raise Failed(f"{figures['largest difference to the CPU']} of 255 from the CPU's images")
    return figures


def weights(check: Check) -> dict[str, Any]:
    """Weights are drawn for the models that were packed without."""
    wanting = [model for model in check.models if any(model.rglob("layout.json"))]
    if not wanting:
        raise NotRun("no model without weights was packed")
    return {model.name: check.call([sys.executable, check.files / "weights.py", model]).strip() for model in wanting}


def bench(check: Check) -> dict[str, Any]:
    """Milliseconds, TFLOP/s and memory of the UNet, of the VAE's decoder, and of a plain product of matrices. The UNet's
    graph for speed is measured on a GPU."""
    rows = "2,16,32" if check.options.scale >= 1 else "2,4"
    seconds = 2 if check.options.scale >= 1 else 0
    figures = {}
    for model in models_of(check):
        words = ["models", "bench", model, "--rows", rows, "--size", check.pixels, "--seconds", seconds]
        fast = ["--fast"] if check.on_gpu and (model / "unet/model.cuda.onnx").exists() else None
        for row in [row for more in [[], fast] if more is not None for row in json.loads(check.run(*words, *more))]:
            if row["error"] or not row["ms_per_call"] > 0:
                raise Failed(f"{model.name}: {row}")
            name = " ".join(str(row[key]) for key in ["model", "variant", "rows"])
            names = ["ms_per_call", "first_call_ms", "tflops", "share_of_peak", "peak_mib", "host_gap_ms"]
            size = f"{row['width']} x {row['height']}"
            figures[f"{model.name} {name} {size}"] = {key: row[key] for key in names if row[key] is not None}
    return figures


def models_of(check: Check) -> list[Path]:
    if not check.models:
        raise NotRun("no model was packed")
    return check.models


def engine(check: Check) -> dict[str, Any]:
    """Images per second of whole runs at 50 % guidance, past loading and the first batches."""
    scale = check.options.scale
    timesteps, seeds = max(4, round(50 * scale)), list(range(1, 1 + max(2, round(8 * scale))))
    work, figures, random = check.work("engine"), {}, np.random.default_rng(0)
    for number in range(12):
        folder = work / "data" / ["heron", "lynx"][number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        colours = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = colours.repeat(check.pixels // 8, 0).repeat(check.pixels // 8, 1)
        (folder / f"{number:02}.png").write_bytes(encode_png(image))
    clip = check.repository / "models/digits/clip"
    for model in models_of(check):
        for batch in [8, 16] if scale >= 1 else [2]:
            lake = work / f"lake-{model.name}-{batch}"
            more = f"width = {check.pixels}\nheight = {check.pixels}"
            toml = write_pipeline(
                work, work / "data", model, clip, timesteps=timesteps, seeds=seeds, tf32=True, more=more
            )
            said = json.loads(check.run("run", toml, "--lake", lake, "--until", "spectrum", "--model-batch", batch))
            ledger = json.loads(check.run("sql", toml, "--lake", lake, LEDGER))
            images, evaluations = steady_rates(ledger, batch)
            figures[f"{model.name}, batches of {batch}"] = {
                "images/s": round(images, 3),
                "UNet rows/s": round(evaluations, 2),
                "engine": said.get("engine", {}),
            }
    return figures


LEDGER = "SELECT rows, unet_evaluations, finished_ms FROM ledger WHERE step = 'spectrum' AND unit <> ''"


def steady_rates(units: list[dict[str, Any]], batch: int) -> tuple[float, float]:
    """Images and UNet rows per second after the units that hold the first two batches, and at most half of all."""
    units = sorted(units, key=lambda unit: unit["finished_ms"])
    if len(units) < 2:
        raise Failed("the ledger has too few units")
    first = min(max(1, math.ceil(2 * batch / units[0]["rows"])), len(units) // 2)
    seconds = max(units[-1]["finished_ms"] - units[first - 1]["finished_ms"], 1) / 1000
    return sum(u["rows"] for u in units[first:]) / seconds, sum(u["unet_evaluations"] for u in units[first:]) / seconds


def diffusers(check: Check) -> dict[str, Any]:
    """UNet rows per second of diffusers on torch, for the same architectures."""
    check.needs_gpu()
    for package in ["torch", "diffusers"]:
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"no {package}")
    return {
        model.name: json.loads(
            check.call([sys.executable, check.files / "peer.py", "unet", model / "unet", check.pixels]).splitlines()[-1]
        )
        for model in models_of(check)
    }


def failures(check: Check) -> dict[str, Any]:
    """A GPU that is not there, and too little memory, are errors that say so; nothing falls back to the CPU."""
    check.needs_gpu()
    toml, work = "pipelines/digits_lt.toml", check.work("failures")
    said = {}
    for name, device, edits in [
        ("a GPU that is not there", "cuda:99", []),
        ("a memory limit below the weights", check.options.device, ["cuda.memory_limit_mib=1"]),
    ]:
        try:
            check.run(
                "run", toml, "--lake", work / "lake", *set_to(*SMALL, *edits), "--until", "spectrum", device=device
            )
        except Failed as failure:
            if "out of time" in str(failure):
                raise
            said[name] = str(failure)[:300]
        else:
            raise Failed(f"{name} was no error")
    return said


PARTS: list[tuple[Callable[[Check], dict[str, Any]], float]] = [
    (doctor, 20),
    (ceilings, 40),
    (recorded, 60),
    (digits, 60),
    (weights, 40),
    (bench, 150),
    (engine, 150),
    (diffusers, 60),
    (failures, 20),
]
"""In this order, each with the seconds that it may take on a GPU; a CPU has ten times as many."""


# --- the whole ----------------------------------------------------------------------------------------------


def joined(parts: Path, manifest: dict[str, Any]) -> Iterator[bytes]:
    """The packed parts, each after its digest was compared."""
    for part in manifest["parts"]:
        contents = (parts / part["name"]).read_bytes()
        if hashlib.sha256(contents).hexdigest() != part["sha256"]:
            raise Failed(f"`{part['name']}` does not have the SHA-256 of the manifest: copy it again")
        yield contents


class Stream:
    """Parts as one file, of which no more than one is in memory. A read ends with its part at the latest."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.part, self.at = parts, b"", 0

    def read(self, size: int) -> bytes:
        if self.at == len(self.part):
            self.part, self.at = next(self.parts, b""), 0
        piece = self.part[self.at : self.at + size]
        self.at += len(piece)
        return piece


def unpack(check: Check) -> dict[str, Any]:
    """Every packed file is there, as it was packed."""
    parts: Path = check.options.parts
    try:
        manifest = json.loads((parts / "manifest.json").read_text())
        with (
            lzma.LZMAFile(Stream(joined(parts, manifest))) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            archive.extractall(check.files, filter="data")
    except (OSError, ValueError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise Failed(f"cannot unpack: {error}") from None
    for name, digest in manifest["files"].items():
        if hashlib.sha256((check.files / name).read_bytes()).hexdigest() != digest:
            raise Failed(f"`{name}` is not as it was packed")
    if not check.program.exists():
        raise Failed("no program was packed: name one by --program")
    return {"files": len(manifest["files"]), "parts": len(manifest["parts"])}


def outcome(check: Check, part: Callable[[Check], dict[str, Any]], limit: float) -> Outcome:
    """Runs a part; whatever goes wrong in it is its own failure."""
    start = time.monotonic()
    check.deadline = start + limit
    status, reason, figures = "passed", "", {}
    try:
        figures = part(check)
        if time.monotonic() > check.deadline:
            status, reason = "failed", "out of time"
    except NotRun as missing:
        status, reason = "not run", str(missing)
    except Failed as failure:
        status, reason = "failed", str(failure)
    except Exception as error:  # A mistake of the check itself must not hide what the other parts find.
        status, reason = "failed", f"{type(error).__name__}: {error}"
    return Outcome(part.__name__, status, round(time.monotonic() - start, 1), limit, reason, figures)


def report(check: Check, done: Outcome) -> Outcome:
    with (check.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(asdict(done)) + "\n")
    print(f"{done.part}: {done.status} in {done.seconds} s {done.reason}".rstrip(), file=sys.stderr, flush=True)
    return done


def table(outcomes: list[Outcome]) -> str:
    lines = ["| part | | seconds | limit | |", "|---|---|---|---|---|"]
    for done in outcomes:
        figures = "; ".join(f"{name}: {value}" for name, value in done.figures.items())
        said = (done.reason or figures).replace("|", "/").replace("\n", " ")
        lines.append(f"| {done.part} | {done.status} | {done.seconds} | {done.limit:g} | {said} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, help="the folder with manifest.json")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="below 1, everything is smaller: sizes, rows, timesteps"
    )
    parser.add_argument("--program", type=Path, help="discl-pipe, if it was not packed")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part, _ in PARTS], help="some parts")
    options = parser.parse_args()
    for name in ["parts", "out", "program"]:
        if path := getattr(options, name):
            setattr(options, name, path.resolve())
    options.out.mkdir(parents=True)
    check = Check(options)
    factor = 1 if check.on_gpu else 10
    outcomes = [report(check, outcome(check, unpack, 60 * factor))]
    for part, limit in PARTS:
        if options.only and part.__name__ not in options.only:
            continue
        if outcomes[0].status == "passed":
            outcomes.append(report(check, outcome(check, part, limit * factor)))
        else:
            outcomes.append(report(check, Outcome(part.__name__, "not run", 0.0, limit, "nothing was unpacked", {})))
    print(table(outcomes))
    return int(any(done.status == "failed" for done in outcomes))


if __name__ == "__main__":
    sys.exit(main())
