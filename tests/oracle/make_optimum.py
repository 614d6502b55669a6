"""Exports small pipelines with `optimum-cli export onnx` itself, and records what diffusers computes from them.

    pip install optimum==2.1.0 optimum-onnx==0.1.0 torch==2.9.1 diffusers==0.35.2 transformers==4.57.6 ftfy==6.3.1
    python tests/oracle/make_optimum.py [--out FOLDER] [--tokenizer FOLDER]

For maintainers: the tests need only the recorded files. The graphs that `make.py` writes are its own, in the layout of
optimum. Those here, `optimum_sd1`, `optimum_sdxl_base` and `optimum_sdxl_refiner`, are optimum's, byte for byte, of the
same pipelines with still fewer channels and a VAE of the true factor, 8. `golden.json` is as that of `make.py`.

Every image is compared with that of optimum's own pipeline, which runs the exported graphs by ONNX Runtime. Without
ftfy, transformers 4 takes every Chinese character for a word; with it, as OpenAI's tokenizer and transformers 5 do.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import diffusers
import make  # make.py, which sets the environment for the packages below
import numpy as np
import optimum.version
import torch
import transformers
from make import Case, Pipeline, Spec
from optimum.onnxruntime import ORTStableDiffusionImg2ImgPipeline, ORTStableDiffusionXLImg2ImgPipeline

SCHEDULERS = {"sd1": "pndm", "sdxl_base": "euler", "sdxl_refiner": "euler"}
"""The default schedulers of the three families."""


def reduced(spec: Spec) -> Spec:
    """optimum stores weights in single precision and every node with its name, so everything else must be smaller."""
    scheduler = SCHEDULERS[spec.name]
    return replace(
        spec,
        name=f"optimum_{spec.name}",
        unet_channels=(12, 12),
        text_sizes=((12, 2), (16, 2)),
        vae_channels=(8, 8, 8, 8),
        cases=[
            Case(scheduler, "leading", "0.5", "wide", 0, make.NEGATIVE),
            Case(scheduler, "leading", "0.7", "square", 1, make.NEGATIVE, guidance=7.5),
        ],
    )


def export(folder: Path, spec: Spec, pipeline: Pipeline) -> None:
    """Paths are relative, because optimum writes the model's path into the configurations."""
    with tempfile.TemporaryDirectory() as work:
        model = Path(work) / "model"
        pipeline.save_pretrained(model)
        index = json.loads(pipeline.to_json_string())
        make.write_json(model / "model_index.json", index | {"_class_name": spec.index_class})
        program = Path(sys.executable).with_name("optimum-cli")
        arguments = ["export", "onnx", "--model", "model", "--task", "image-to-image", "exported"]
        subprocess.run([program, *arguments], check=True, cwd=work)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(work) / "exported", folder)


def compare(folder: Path, spec: Spec, pipeline: Pipeline, number: int) -> None:
    """Fails unless the exported graphs generate torch's image for every case."""
    kind = ORTStableDiffusionXLImg2ImgPipeline if spec.sdxl else ORTStableDiffusionImg2ImgPipeline
    exported = kind.from_pretrained(folder)
    exported.set_progress_bar_config(disable=True)
    sources = make.make_sources(spec.factor)
    for seed, case in enumerate(spec.cases, 1000 * (1 + number)):
        images = [make.run(run, spec, case, sources[case.source], seed)[1] for run in (pipeline, exported)]
        difference = int(np.abs(np.subtract(*images, dtype=np.int16)).max())
        print(f"  {spec.name}: {case.strength}: within {difference}/255 of torch", flush=True)
        if difference > 1:
            raise ValueError(f"{folder}: the image at {case.strength} differs by {difference}/255")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=make.OUT, help="folder for the pipelines' folders")
    parser.add_argument("--tokenizer", type=Path, default=make.TOKENIZER, help="folder of the CLIP tokenizer to reuse")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    specs = [reduced(spec) for spec in make.SPECS if spec.name in SCHEDULERS]
    with torch.no_grad():
        for number, spec in enumerate(specs, len(make.SPECS)):
            pipeline = make.build(spec, arguments.tokenizer, number)
            folder = arguments.out / spec.name
            export(folder, spec, pipeline)
            golden = make.record(pipeline, spec, number)
            used = {case.source for case in spec.cases}
            golden["sources"] = {name: source for name, source in golden["sources"].items() if name in used}
            versions = f"optimum {optimum.version.__version__}, {golden['made_by'].partition(': ')[2]}"
            make.write_json(folder / "golden.json", golden | {"made_by": f"tests/oracle/make_optimum.py: {versions}"})
            compare(folder, spec, pipeline, number)


if __name__ == "__main__":
    main()
