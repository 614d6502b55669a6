"""One measurement: `discl-pipe` and its peers on the same images, graphs, runtime library and cores, in turn.

    python compare.py DISCL_PIPE [--runs 3] [--threads N] [--parts job steady big] [--raw FILE] > table.md

Parts:

- `job`: the pipeline's candidates, spectrum and scores, with retries. Seconds, the fewer the better.
- `steady`: first attempts of one level, without scores. UNet evaluations per second, the more the better.
- `big`: few images by a UNet of 58 M parameters (created first, by `big_unet.py`): the share of the time in which some
  model runs. Peers take part only where `--big-peers` names them.

A peer is written `name@T`, with T cores for one operator, or `name@TxW`, with W batches side by side. Names:
`released`, `batched`, `torch` (one image at a time) and `torch-batched`. A round has each contender once, and begins
with another one than the round before. All use the ONNX Runtime of the Python package, `discl-pipe` too. Its time
has the loading of models and the writing of tables in it; the peers' has neither. A quick try, under two minutes:

    python compare.py DISCL_PIPE --runs 1 --parts job steady --steady-seeds 2 --set hard_samples.max_class_count=4
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime

HERE = Path(__file__).resolve().parent
US = "discl-pipe"
PACKAGES = ["onnxruntime", "torch", "diffusers", "transformers", "numpy", "pillow"]


@dataclass(frozen=True)
class Sample:
    """One run of one contender."""

    part: str
    contender: str
    seconds: float
    images: int
    unet_evaluations: int
    busy_share: float | None = None
    batch_fill: float | None = None

    @property
    def rate(self) -> float:
        """UNet evaluations per second."""
        return self.unet_evaluations / self.seconds


@dataclass(frozen=True)
class Part:
    """What is measured: a pipeline and its edits, the steps that count, and the last step to run."""

    name: str
    pipeline: Path
    edits: list[str]
    steps: list[str]
    until: str
    peers: list[str]


def call(command: list[str | Path], threads: int, folder: Path) -> dict:
    """Runs a program that prints JSON; shows its other output if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([str(word) for word in command], env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout)


def library() -> Path:
    """The runtime's shared library in the Python package."""
    (file,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return file


def with_edits(edits: list[str]) -> list[str]:
    return [word for edit in edits for word in ["--set", edit]]


def run_us(arguments: argparse.Namespace, part: Part, work: Path) -> Sample:
    """`discl-pipe` on a fresh lake."""
    with tempfile.TemporaryDirectory(dir=work) as lake:
        command = [arguments.binary, "run", part.pipeline, "--lake", lake, "--format", "json", "--until", part.until]
        command += ["--device", "cpu", "--onnxruntime", library(), "--model-threads", arguments.threads]
        command += ["--model-batch", arguments.batch, *with_edits(part.edits)]
        said = call(command, arguments.threads, arguments.root)
    steps = {step["step"]: step for step in said["steps"]}
    engine = said["engine"]
    return Sample(
        part.name,
        US,
        sum(steps[step]["seconds"] for step in part.steps),
        steps["spectrum"]["rows"],
        engine["unet_evaluations"],
        engine["busy_seconds"] / steps["spectrum"]["seconds"],
        engine["batch_fill"],
    )


def peer_command(arguments: argparse.Namespace, peer: str) -> tuple[list[str], int]:
    """The script and options of a peer, and its threads."""
    match = re.fullmatch(r"(released|batched|torch|torch-batched)@(\d+)(?:x(\d+))?", peer)
    if not match or (match[3] and match[1] != "batched"):
        sys.exit(f"{peer}: no such peer")
    options = {
        "released": ["released.py"],
        "batched": ["batched.py", "--batch", str(arguments.batch), "--workers", match[3] or "1"],
        "torch": ["torch_diffusers.py", "--check"],
        "torch-batched": ["torch_diffusers.py", "--check", "--batch", str(arguments.batch)],
    }
    spin = ["--spin"] if arguments.spin and not match[1].startswith("torch") else []
    return [*options[match[1]], *spin, "--threads", match[2]], int(match[2])


def run_peer(arguments: argparse.Namespace, part: Part, peer: str, work: Path) -> Sample:
    """A peer, on the job file of a part."""
    options, threads = peer_command(arguments, peer)
    mode = "job" if "scores" in part.steps else "steady"
    command = [sys.executable, *options, job_file(work, part), "--mode", mode]
    said = call(command, threads, HERE)
    share = said["model_seconds"] / said["seconds"] if "model_seconds" in said and "x" not in peer else None
    return Sample(part.name, peer, said["seconds"], said["images"], said["unet_evaluations"], share)


def job_file(work: Path, part: Part) -> Path:
    return work / f"{part.name}.jsonl"


def write_jobs(arguments: argparse.Namespace, part: Part, work: Path) -> None:
    command = [sys.executable, HERE / "jobs.py", part.pipeline, job_file(work, part), *with_edits(part.edits)]
    subprocess.run([str(word) for word in command], cwd=arguments.root, check=True, stdout=sys.stderr)


def parts(arguments: argparse.Namespace, work: Path) -> list[Part]:
    """The requested parts, ready to run."""
    pipeline = arguments.root / "pipelines/digits_lt.toml"
    peers, big = arguments.peers, arguments.big or work / "big"
    steady = [
        *arguments.edits,
        f"spectrum.image_guidance=[{arguments.steady_level}]",
        f"spectrum.seeds={list(range(1, arguments.steady_seeds + 1))}",
        "filter.max_attempts=1",
    ]
    known = {
        "job": Part("job", pipeline, arguments.edits, ["candidates", "spectrum", "scores"], "scores", peers),
        "steady": Part("steady", pipeline, steady, ["spectrum"], "spectrum", peers),
        "big": Part("big", big / "big.toml", arguments.big_edits, ["spectrum"], "spectrum", arguments.big_peers),
    }
    chosen = [known[name] for name in arguments.parts]
    if "big" in arguments.parts and not (big / "big.toml").exists():
        command = [sys.executable, str(HERE / "big_unet.py"), str(big)]
        subprocess.run(command, cwd=arguments.root, check=True, stdout=sys.stderr)
    for part in chosen:
        write_jobs(arguments, part, work)
    return chosen


def measure(arguments: argparse.Namespace, part: Part, work: Path) -> list[Sample]:
    """All contenders in turn, several times."""
    samples = []
    contenders = [US, *part.peers]
    for run in range(arguments.runs):
        first = run % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            if contender == US:
                sample = run_us(arguments, part, work)
            else:
                sample = run_peer(arguments, part, contender, work)
            samples.append(sample)
            print(f"{part.name} {run + 1}: {contender} {sample.seconds:.1f} s, {sample.rate:.0f}/s", file=sys.stderr)
            if arguments.raw:
                with arguments.raw.open("a") as raw:
                    raw.write(json.dumps({"run": run, **asdict(sample)}) + "\n")
    return samples


def spread(samples: list[Sample], of: Callable[[Sample], float], digits: int) -> str:
    """Cells for the minimum, the median and the maximum."""
    values = [of(sample) for sample in samples]
    return " | ".join(f"{value:.{digits}f}" for value in [min(values), statistics.median(values), max(values)])


def median(samples: list[Sample], of: Callable[[Sample], float]) -> float:
    return statistics.median(of(sample) for sample in samples)


def percent(samples: list[Sample], of: Callable[[Sample], float | None]) -> str:
    """The median of a share, if it is known."""
    values = [value for sample in samples if (value := of(sample)) is not None]
    return f"{100 * statistics.median(values):.0f} %" if values else ""


def table(part: Part, samples: list[Sample]) -> str:
    """A part's result in Markdown."""
    by_time = part.name == "job"
    unit = "seconds" if by_time else "UNet evaluations per second"
    other = "evaluations per second" if by_time else "seconds"
    lines = [
        f"| {part.name}: {unit} | minimum | median | maximum | `{US}` is faster by | images | UNet evaluations "
        f"| {other} | a model runs | batch fill |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {name: [s for s in samples if s.contender == name] for name in [US, *part.peers]}
    us = median(groups[US], lambda sample: sample.seconds if by_time else 1 / sample.rate)
    for name, group in groups.items():
        main = spread(group, (lambda s: s.seconds), 1) if by_time else spread(group, (lambda s: s.rate), 1)
        second = median(group, lambda s: s.rate if by_time else s.seconds)
        ratio = median(group, lambda s: s.seconds if by_time else 1 / s.rate) / us
        cells = [
            f"`{name}`",
            main,
            "" if name == US else f"{ratio:.2f}",
            f"{median(group, lambda s: s.images):.0f}",
            f"{median(group, lambda s: s.unet_evaluations):.0f}",
            f"{second:.1f}",
            percent(group, lambda s: s.busy_share),
            percent(group, lambda s: s.batch_fill),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def output_of(command: list[str | Path]) -> str:
    """The first line that a program prints, or nothing if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def processor() -> str:
    """The processor's name, if the system reports it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


def setting(arguments: argparse.Namespace) -> str:
    """Machine and versions, in Markdown."""
    packages = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    commit = output_of(["git", "--no-optional-locks", "-C", arguments.root, "describe", "--always", "--dirty"])
    return "\n".join(
        [
            f"- {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
            f"load average at the start {os.getloadavg()[0]:.1f}",
            f"- {output_of([arguments.binary, '--version'])} of commit {commit}, `{arguments.binary}`, "
            f"{arguments.threads} model threads, batches of {arguments.batch}; ONNX Runtime: `{library().name}`",
            f"- Python {platform.python_version()}, {', '.join(packages)}",
            f"- {arguments.runs} rounds, {time.strftime('%Y-%m-%d')}; edits: {arguments.edits or 'none'}, "
            f"of `big`: {arguments.big_edits or 'none'}",
        ]
    )


def arguments() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="the repository")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores, help="cores for models")
    parser.add_argument("--batch", type=int, default=8, help="samples in one call of the UNet")
    parser.add_argument("--parts", nargs="+", choices=["job", "steady", "big"], default=["job", "steady", "big"])
    parser.add_argument("--peers", nargs="*", help="for `job` and `steady`; see above for their names")
    parser.add_argument("--big-peers", nargs="*", default=[], help="for `big`")
    parser.add_argument("--big", type=Path, help="folder of big_unet.py's output, created if missing")
    parser.add_argument("--big-set", action="append", default=[], metavar="KEY=VALUE", dest="big_edits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="edits")
    parser.add_argument("--steady-level", type=int, default=0, help="percent of image guidance")
    parser.add_argument("--steady-seeds", type=int, default=8, help="images for each source")
    parser.add_argument("--spin", action="store_true", help="idle threads of ONNX Runtime spin, in peers")
    parser.add_argument("--raw", type=Path, help="a file for each run's figures, as JSON lines")
    known = parser.parse_args()
    if known.peers is None:
        threads = list(dict.fromkeys([1, known.threads]))
        known.peers = [f"{name}@{count}" for name in ["released", "batched"] for count in threads]
        known.peers += [f"batched@1x{known.threads}"] if known.threads > 1 else []
        known.peers += ["torch@1", "torch-batched@1"]
    for name in ["binary", "root", "big", "raw"]:
        if path := getattr(known, name):
            setattr(known, name, path.resolve())
    return known


def main() -> None:
    known = arguments()
    print(setting(known), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(known, Path(folder)):
            print(f"\n{table(part, measure(known, part, Path(folder)))}", flush=True)
    print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
