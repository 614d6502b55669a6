"""Runs the trainers of `examples/pytorch` on the digits, on a CPU, in some ten minutes: `make trainers`.

`python check.py PROGRAM`, in the root of the repository, with the packages of requirements.txt. One line per check;
exit code 1 where any failed.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from deltalake import DeltaTable

PROGRAM = Path(sys.argv[1]).resolve()
SCRATCH = tempfile.TemporaryDirectory()
FOLDER = Path(SCRATCH.name)
RARE = ["hard_samples.max_class_count=10", "spectrum.image_guidance=[10,50,90]", "spectrum.seeds=[10]"]
RARE += ["curriculum.epochs=5", "curriculum.curriculum_epochs=4"]
POOR = ["curriculum.epochs=10", "curriculum.curriculum_epochs=4"]
RESNET = ["train_resnet.py", "--size", "32", "--plain"]
CLIP = ["finetune_clip.py", "--model", "models/digits/clip", "--scratch", "--lr", "1e-3", "--batch", "32"]
CLIP += ["--warmup", "20"]
KILLS = 4


def settings(lake: str, edits: list[str]) -> list[str]:
    return ["--lake", str(FOLDER / lake), *(word for edit in edits for word in ("--set", edit))]


def program(*arguments: str | Path) -> None:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def command(trainer: list[str], data: Path, run: str, *options: str | Path) -> list[str | Path]:
    name, *own = trainer
    same = ["--workers", "1", "--device", "cpu", "--save-every", "3"]
    return [sys.executable, "-B", f"examples/pytorch/{name}", data, FOLDER / run, *own, *same, *options]


def scores(words: list[str | Path]) -> dict[str, dict[str, float]]:
    """What a trainer says last."""
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def killed(words: list[str | Path], seconds: float) -> dict[str, dict[str, float]]:
    """The same of a trainer that is killed several times within about so many seconds, and then left alone."""
    draw = random.Random(0)
    for _ in range(KILLS):
        try:
            subprocess.run(words, capture_output=True, timeout=5 + draw.random() * seconds / KILLS)
        except subprocess.TimeoutExpired:
            continue  # that is the kill
    return scores(words)


def same_weights(first: str, second: str, names: list[str]) -> None:
    """Two runs have the same checkpoints of these names."""
    for name in names:
        one, other = (torch.load(FOLDER / run / name, weights_only=True) for run in (first, second))
        one, other = one.get("model", one), other.get("model", other)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), f"{name} differs"


def resnet() -> str:
    """A ResNet learns the digits, and a run that was killed has the same weights."""
    found = scores(command(RESNET, FOLDER / "rare/digits_lt", "resnet"))
    assert found.keys() == {"validation", "test"} and found["test"]["accuracy"] > 60, found
    assert killed(command(RESNET, FOLDER / "rare/digits_lt", "resnet killed"), 30) == found
    same_weights("resnet", "resnet killed", ["last.pt", "best.pt"])
    return json.dumps(found["test"])


def balanced_softmax() -> str:
    """The other loss learns, too."""
    found = scores(command(RESNET, FOLDER / "rare/digits_lt", "balanced", "--loss", "balanced_softmax"))
    assert found["test"]["accuracy"] > 60, found
    return json.dumps(found["test"])


def export() -> str:
    """An export gives the same weights as the lake. Without validation images the last epoch is the best."""
    edits = settings("rare", RARE)
    program("export", "pipelines/digits_lt.toml", FOLDER / "out", "--as", "imagefolder", *edits)
    assert scores(command(RESNET, FOLDER / "out", "exported")) == {}
    same_weights("resnet", "exported", ["last.pt"])
    return "as of the lake"


def without_test() -> str:
    """The data set of the quickstart has no split `test`, and its classes are folders."""
    page = Path("docs/quickstart.md").read_text()
    blocks = [block.partition("\n") for block in page.split("```")[1::2]]
    images, pipeline = (next(text for kind, _, text in blocks if kind == wanted) for wanted in ("python", "toml"))
    program_folder = FOLDER / "quickstart"
    program_folder.mkdir()
    for shared in ("data", "models"):
        (program_folder / shared).symlink_to(Path(shared).resolve())
    (program_folder / "quickstart.toml").write_text(pipeline)
    (program_folder / "images.py").write_text(images)
    subprocess.run([sys.executable, "images.py"], cwd=program_folder, check=True)
    subprocess.run([PROGRAM, "run", "quickstart.toml"], cwd=program_folder, check=True, capture_output=True)
    found = scores(command(RESNET, program_folder / "lake/quickstart", "quick"))
    assert found.keys() == {"validation"} and found["validation"]["accuracy"] > 60, found
    return json.dumps(found["validation"])


def clip() -> str:
    """CLIP learns the captions and gives the adaptive curriculum what it waits for; a run that was killed has the same
    feedback, and so the same weights."""
    shutil.copytree(FOLDER / "poor", FOLDER / "poor killed")

    def words(lake: str) -> list[str | Path]:
        pipeline = ["--pipeline", "pipelines/digits_low_quality.toml", "--program", PROGRAM]
        data = FOLDER / lake / "digits_low_quality"
        return command(CLIP, data, f"clip {lake}", *pipeline, "--", *settings(lake, POOR))

    found = scores(words("poor"))
    assert found.keys() == {"validation", "test", "shifted_test"} and found["test"]["macro_f1"] > 20, found
    assert killed(words("poor killed"), 90) == found
    same_weights("clip poor", "clip poor killed", ["last.pt", "best.pt"])
    tables = [FOLDER / lake / "digits_low_quality/feedback" for lake in ("poor", "poor killed")]
    rows = [sorted(map(repr, DeltaTable(table).to_pyarrow_table().to_pylist())) for table in tables]
    assert rows[0] == rows[1] and rows[0], [len(found) for found in rows]
    return json.dumps(found["test"])


def main() -> int:
    program("run", "pipelines/digits_lt.toml", *settings("rare", RARE))
    program("run", "pipelines/digits_low_quality.toml", *settings("poor", POOR))
    checks: list[Callable[[], str]] = [resnet, balanced_softmax, export, without_test, clip]
    failures = 0
    for check in checks:
        try:
            print(f"ok      {check.__name__}: {check()}", flush=True)
        except Exception as error:  # whatever a trainer raises is a finding
            failures += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
