"""Reads every table of a lake with engines that did not write it, and compares what they find.

    python check.py LAKE_DIR

LAKE_DIR holds one folder per Delta table. One line per check; the exit code is 1 where any failed.
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory()  # for the cache of `datasets`, which reads these as it is imported
os.environ.update(HF_HOME=SCRATCH.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import datasets  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.dataset as ds  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from deltalake import DeltaTable  # noqa: E402
from PIL import Image  # noqa: E402

# The columns that name a row of each table; a ledger's rows have no name.
KEYS: dict[str, list[str]] = {
    "pixels": ["source_id"],
    "images": ["source_id"],
    "hard_samples": ["source_id"],
    "candidates": ["sample_id"],
    "spectrum": ["sample_id"],
    "scores": ["score_id"],
    "kept": ["sample_id"],
    "schedule": ["curriculum", "trial", "epoch", "image_guidance"],
    "manifest": ["curriculum", "trial", "epoch", "position"],
    "rejects": ["step", "id"],
    "ledger": [],
}
PICTURES = ["pixels", "spectrum"]
ROW_GROUP_ROWS = 100
TOO_LARGE = 8 << 20  # bytes of a page or of a value


def expect(fact: bool, otherwise: str) -> None:
    """Fails the check where `fact` does not hold (`assert` would be silent under `python -O`)."""
    if not fact:
        raise ValueError(otherwise)


def read(lake: Path, table: str) -> pl.DataFrame:
    """The rows of the newest version."""
    return pl.read_delta(str(lake / table))


def same_rows(lake: Path, table: str) -> str:
    """Each engine finds the same columns, and the same rows in them."""
    path = str(lake / table)
    delta, frame, lazy = DeltaTable(path), pl.read_delta(path), pl.scan_delta(path)
    files, schema = delta.file_uris(), pa.schema(delta.schema().to_arrow())
    for file in files:
        found = pq.read_schema(file).remove_metadata()
        expect(found.equals(schema), f"{file} has the columns\n{found}\nand the log\n{schema}")
    columns = pl.DataFrame(schema.empty_table()).schema
    expect(frame.schema == columns == lazy.collect_schema(), f"polars has {frame.schema}, the log {columns}")
    found = {
        "pyarrow.parquet": [row for file in files for row in pq.read_table(file).to_pylist()],
        "pyarrow.dataset": ds.dataset(files, schema=schema, format="parquet").to_table().to_pylist(),
        "to_pyarrow_table": delta.to_pyarrow_table().to_pylist(),
        "to_pyarrow_dataset": delta.to_pyarrow_dataset().to_table().to_pylist(),
        "polars.read_delta": frame.to_dicts(),
        "polars.scan_delta": lazy.collect().to_dicts(),
    }
    counts = {engine: len(rows) for engine, rows in found.items()}
    expect(len(set(counts.values())) == 1, f"rows: {counts}")
    expected = sorted(map(repr, found["pyarrow.parquet"]))
    for engine, rows in found.items():
        for mine, theirs in zip(expected, sorted(map(repr, rows))):
            expect(mine == theirs, f"pyarrow.parquet has {mine[:400]}, {engine} has {theirs[:400]}")
    return f"{len(expected)} rows, {len(schema)} columns, {len(files)} files, version {delta.version()}"


def true_statistics(lake: Path, table: str) -> str:
    """What the log says of each file is so: engines skip files by it."""
    ranges = 0
    for action in pa.table(DeltaTable(lake / table).get_add_actions(flatten=True)).to_pylist():
        file = lake / table / action["path"]
        rows = pq.read_table(file)
        said, so = (action["size_bytes"], action["num_records"]), (file.stat().st_size, rows.num_rows)
        expect(said == so, f"{file.name}: the log has {said} bytes and rows, the file {so}")
        for column in rows.column_names:
            said = [action.get(f"{kind}.{column}") for kind in ("min", "max", "null_count")]
            if said != [None, None, None]:
                so = [*pc.min_max(rows[column]).as_py().values(), rows[column].null_count]
                expect(said == so, f"{file.name}, {column}: the log has {said} as least, most, nulls; the file {so}")
                ranges += 1
    return f"{ranges} ranges"


def unique_names(lake: Path, table: str) -> str:
    """No two rows have the same name, none lacks a part of it, and a query for one finds one row."""
    names = read(lake, table).select(KEYS[table])
    expect(sum(names.null_count().row(0)) == 0, f"{KEYS[table]} is null somewhere")
    twice = names.filter(names.is_duplicated())
    expect(twice.is_empty(), f"{twice.height} rows share their {KEYS[table]}, such as {twice.head(1).rows()}")
    for name in names.gather_every(max(1, names.height // 5)).to_dicts():
        lazy = pl.scan_delta(str(lake / table)).filter(**name).collect().height
        wanted = [(column, "=", value) for column, value in name.items()]
        eager = DeltaTable(lake / table).to_pyarrow_table(filters=wanted).num_rows
        expect(lazy == eager == 1, f"{name}: polars finds {lazy} rows, deltalake {eager}")
    return ", ".join(KEYS[table])


def picture_layout(lake: Path, table: str) -> str:
    """Pictures lie in small row groups, bounded pages, without dictionary and statistics; files name their features."""
    largest = 0
    for file in DeltaTable(lake / table).file_uris():
        meta, schema = pq.read_metadata(file), pq.read_schema(file)
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        expect(list(said) == schema.names, f"{file}: info.features are {list(said)}, columns {schema.names}")
        expect(said["image"] == {"_type": "Image"}, f"{file}: the feature of image is {said['image']}")
        for group in map(meta.row_group, range(meta.num_row_groups)):
            expect(group.num_rows <= ROW_GROUP_ROWS, f"{file}: a row group of {group.num_rows} rows")
            [chunk] = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "image.bytes"]
            coded = chunk.has_dictionary_page or any("DICTIONARY" in encoding for encoding in chunk.encodings)
            expect(not coded, f"{file}: image.bytes has a dictionary: {chunk.encodings}")
            expect(chunk.statistics is None, f"{file}: image.bytes has statistics")
            # no page is larger than its chunk, and no value than its page
            largest = max(largest, chunk.total_uncompressed_size)
            expect(largest < TOO_LARGE, f"{file}: image.bytes has a chunk of {largest} bytes, {TOO_LARGE} is too large")
    return f"info.features; chunks of at most {largest} bytes"


def pictures(lake: Path, table: str) -> str:
    """`datasets` gives the pictures as Pillow decodes them, at the size that they should have."""
    [key] = KEYS[table]
    files = DeltaTable(lake / table).file_uris()
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=SCRATCH.name)
    expect(isinstance(loaded.features["image"], datasets.Image), f"image is {loaded.features['image']}")
    raw = {row[key]: row for row in read(lake, table).to_dicts()}
    expect(sorted(loaded[key]) == sorted(raw), f"datasets has {len(loaded)} rows of {len(raw)}, or others")
    size_of: dict[str, tuple[int, int]] = {}  # what one generator makes has one size
    for row in loaded:
        mine, theirs = raw[row[key]], row["image"]
        expect(isinstance(theirs, Image.Image), f"{row[key]}: datasets gives {type(theirs)}")
        expected = Image.open(io.BytesIO(mine["image"]["bytes"]))
        info = mine.get("info")
        size = (info["width"], info["height"]) if info else size_of.setdefault(mine["generator"], expected.size)
        expect(theirs.size == expected.size == size, f"{row[key]}: {theirs.size} and {expected.size}, not {size}")
        same = theirs.mode == expected.mode and theirs.tobytes() == expected.tobytes()
        expect(same, f"{row[key]}: datasets and Pillow decode different pixels")
    return f"{len(loaded)} pictures"


def one_picture_each(lake: Path, table: str) -> str:
    """Each row is of one picture, real or synthetic, and of an epoch that is scheduled."""
    real, synthetic = read(lake, "pixels")["source_id"], read(lake, "spectrum")["sample_id"]
    found = pl.concat([real.alias("sample_id"), synthetic]).value_counts(name="found")
    rows = read(lake, table)
    wrong = rows.join(found, on="sample_id", how="left").filter(pl.col("found").ne_missing(1))
    expect(wrong.is_empty(), f"{wrong.height} rows are not of one picture, such as {wrong.head(1).to_dicts()}")
    lost = rows.join(read(lake, "schedule"), on=["curriculum", "trial", "epoch"], how="anti")
    expect(lost.is_empty() and rows.height > 0, f"{lost.height} of {rows.height} rows are of no scheduled epoch")
    return f"{rows.height} rows, {rows['sample_id'].n_unique()} pictures"


def scored(lake: Path, table: str) -> str:
    """Each row is a candidate, with the score that `scores` has for it."""
    slot = ["sample_id", "source_id", "label", "image_guidance", "seed", "attempt"]
    rows = read(lake, table)
    asked = rows.join(read(lake, "candidates").select(*slot, "score_id"), on=slot)
    expect(asked.height == rows.height, f"{asked.height} of {rows.height} rows are candidates")
    score = ["score_id", "text_similarity", "image_similarity"]
    found = asked.join(read(lake, "scores").select(score), on=score).filter(pl.col("text_similarity").is_finite())
    expect(found.height == rows.height, f"{found.height} of {rows.height} rows have the score that scores has")
    return f"{rows.height} rows"


def earlier_versions(lake: Path, table: str) -> str:
    """Every version still opens; the first is empty, and the next is not."""
    counts = []
    for version in range(DeltaTable(lake / table).version() + 1):
        counts.append(DeltaTable(lake / table, version=version).to_pyarrow_table().num_rows)
        height = pl.read_delta(str(lake / table), version=version).height
        expect(height == counts[-1], f"version {version}: polars has {height} rows, deltalake {counts[-1]}")
    expect(len(counts) > 1 and counts[0] == 0 < counts[1], f"rows by version: {counts}")
    return f"rows by version: {counts}"


def main(lake: Path) -> int:
    """Runs every check, prints a line for each, and gives the number of those that failed."""
    datasets.disable_progress_bars()
    others = {path.parent.name for path in lake.glob("*/_delta_log")} - KEYS.keys()  # a pipeline's own steps
    tables = [table for table in [*KEYS, *sorted(others)] if table != "rejects" or (lake / table).exists()]
    checks: list[tuple[Callable[[Path, str], str], str]] = []
    checks += [(check, table) for table in tables for check in (same_rows, true_statistics)]
    checks += [(unique_names, table) for table in tables if KEYS.get(table)]
    checks += [(check, table) for table in PICTURES for check in (picture_layout, pictures)]
    checks += [(one_picture_each, "manifest"), (scored, "kept"), (earlier_versions, "candidates")]
    failures = 0
    for check, table in checks:
        title = f"{table}: {check.__name__.replace('_', ' ')}"
        try:
            print(f"ok      {title}: {check(lake, table)}", flush=True)
        except (Exception, pl.exceptions.PanicException) as error:  # whatever an engine raises is a finding
            failures += 1
            print(f"FAILED  {title}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(checks) - failures} of {len(checks)} checks passed")
    return failures


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} LAKE_DIR")
    sys.exit(min(main(Path(sys.argv[1]).resolve()), 1))
