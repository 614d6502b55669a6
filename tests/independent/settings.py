"""A pipeline's settings and inputs, read from its file and its data set: nothing here asks the program.

The defaults are those of docs/reference.md. Only data sets of kind `parquet` are read, and only the scheduler `ddim` is
known, whose timesteps are one evaluation of the UNet each.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from PIL import Image

from method import REAL, source_id

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULTS: dict[str, object] = {
    "seed": 0,
    "source.image_column": "image",
    "source.label_column": "label",
    "hard_samples.sql": "hard_samples/few_shot.sql",
    "hard_samples.max_class_count": 20,
    "hard_samples.confidences": None,
    "hard_samples.max_probability": 1.0,
    "hard_samples.hard_fraction": 1.0,
    "hard_samples.exclude_classes": [],
    "prompts.descriptions": None,
    "prompts.common_names": None,
    "prompts.generation": "a photo of {class}",
    "prompts.filter": "a photo of {class}",
    "prompts.captions": ["a photo of {class}."],
    "spectrum.timesteps": 50,
    "spectrum.guidance_scale": 10.0,
    "filter.sql": "kept/text_similarity.sql",
    "filter.min_text_similarity": 0.3,
    "filter.max_attempts": 6,
    "validation.sources": 0,
    "curriculum.strategy": "diverse_to_specific",
    "curriculum.epochs": 65,
    "curriculum.curriculum_epochs": 60,
    "curriculum.non_hard_fraction": 0.3,
    "curriculum.synthetic_per_hard": None,
    "curriculum.level": None,
    "curriculum.trials": ["0"],
    "curriculum.probe_size": 0,
    "curriculum.exploration": 0.0,
    "curriculum.class_balanced": False,
    "curriculum.manifest": "manifest/mixed.sql",
}
LISTS = ["hard_samples.exclude_classes", "prompts.captions", "curriculum.trials"]  # a single value is a list of one


def read(pipeline: Path, edits: list[str]) -> dict[str, object]:
    """Every setting by its key, `section.name`, with `edits` of the form `key=value`."""
    tables = tomllib.loads(pipeline.read_text())
    found = {key: value for key, value in tables.items() if not isinstance(value, dict | list)}
    for section, table in tables.items():
        if isinstance(table, dict):
            found |= {f"{section}.{key}": value for key, value in table.items()}
    for edit in edits:
        key, text = edit.split("=", 1)
        found[key] = parse(text)
    settings = DEFAULTS | found
    for key in LISTS:
        value = settings[key]
        settings[key] = value if isinstance(value, list) else [value]
    return settings | derived(settings)


def parse(text: str) -> object:
    """A value as in TOML; what is none is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def derived(settings: dict[str, object]) -> dict[str, object]:
    """The settings whose defaults are other settings."""
    levels = settings["spectrum.image_guidance"]
    if settings["curriculum.manifest"] == "manifest/low_quality.sql":
        levels = [*levels, REAL]
    share = None if settings["curriculum.synthetic_per_hard"] is not None else 0.136
    return {
        "curriculum.levels": sorted(settings.get("curriculum.levels", levels)),
        "curriculum.seed": settings.get("curriculum.seed", settings["seed"]),
        "curriculum.hard_share": settings.get("curriculum.hard_share", share),
    }


def images(settings: dict[str, object]) -> pl.DataFrame:
    """The real images of every split, with the columns of the table `images` but `pixel_id`."""
    rows = []
    for split, files in settings["source.splits"].items():
        for name in files if isinstance(files, list) else [files]:
            rows += images_of(settings, split, name)
    return pl.DataFrame(rows)


def images_of(settings: dict[str, object], split: str, name: str) -> list[dict]:
    table = pq.read_table(Path(settings["source.root"]) / name)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names, rows = features[settings["source.label_column"]]["names"], []
    pixels, labels = (table[settings[f"source.{column}_column"]].to_pylist() for column in ("image", "label"))
    for number, (pixel, label) in enumerate(zip(pixels, labels, strict=True)):
        path, image = f"{name}#{number}", Image.open(io.BytesIO(pixel["bytes"]))
        row = dict(source_id=source_id(path), path=path, label=label, class_name=names[label], split=split)
        row |= dict(width=image.width, height=image.height, format=image.format.lower())
        rows.append(row | dict(digest=hashlib.sha256(pixel["bytes"]).hexdigest()))
    return rows


def texts(file: str | None) -> dict:
    """A JSON object by class: `prompts.descriptions` or `prompts.common_names`."""
    return json.loads(Path(file).read_text()) if file else {}
