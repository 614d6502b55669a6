"""Reads every table of a lake with engines that did not write it, and compares what they find.

`python check.py LAKE_DIR`, which holds one folder per Delta table. One line per check; exit code 1 where any failed.
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory()  # for the cache of `datasets`, which reads these as it is imported
OFFLINE = dict.fromkeys(["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"], "1")
os.environ.update(OFFLINE, HF_HOME=SCRATCH.name)

import datasets  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from deltalake import DeltaTable  # noqa: E402
from PIL import Image  # noqa: E402

SOURCE, SAMPLE, EPOCH = ["source_id"], ["sample_id"], ["curriculum", "trial", "epoch"]
# The columns that name a row of each table; a ledger's rows have no name.
KEYS: dict[str, list[str]] = dict(
    pixels=["pixel_id"], images=SOURCE, hard_samples=SOURCE, candidates=SAMPLE, spectrum=SAMPLE,
    scores=["score_id"], kept=SAMPLE, validation=["source_id", "image_guidance"], probe=[*EPOCH, "position"],
    progress=[*EPOCH, "image_guidance"], schedule=[*EPOCH, "image_guidance"], manifest=[*EPOCH, "position"],
    rejects=["step", "id"], ledger=[],
)  # fmt: skip
ROW_GROUP_ROWS, TOO_LARGE = 100, 8 << 20  # of tables with pictures: a row group's rows, a page's or a value's bytes


def read(lake: Path, table: str) -> pl.DataFrame:
    """The rows of the newest version."""
    return pl.read_delta(str(lake / table))


def same_rows(lake: Path, table: str) -> str:
    """Each engine finds the same columns, and the same rows in them."""
    delta, frame, lazy = DeltaTable(lake / table), read(lake, table), pl.scan_delta(str(lake / table))
    files, schema = delta.file_uris(), pa.schema(delta.schema().to_arrow())
    for file in files:
        columns = pq.read_schema(file).remove_metadata()
        assert columns.equals(schema), f"{file} has the columns\n{columns}\nand the log\n{schema}"
    expected = pl.DataFrame(schema.empty_table()).schema
    assert frame.schema == expected == lazy.collect_schema(), f"polars has {frame.schema}, the log {expected}"
    found = {
        "pyarrow.parquet": [row for file in files for row in pq.read_table(file).to_pylist()],
        "to_pyarrow_table": delta.to_pyarrow_table().to_pylist(),
        "to_pyarrow_dataset": delta.to_pyarrow_dataset().to_table().to_pylist(),
        "polars.read_delta": frame.to_dicts(),
        "polars.scan_delta": lazy.collect().to_dicts(),
    }
    first = sorted(map(repr, found["pyarrow.parquet"]))
    for engine, rows in found.items():
        assert len(rows) == len(first), f"pyarrow.parquet has {len(first)} rows, {engine} has {len(rows)}"
        for mine, theirs in zip(first, sorted(map(repr, rows)), strict=True):
            assert mine == theirs, f"pyarrow.parquet has {mine[:400]}, {engine} has {theirs[:400]}"
    return f"{len(first)} rows, {len(schema)} columns, {len(files)} files, version {delta.version()}"


def true_statistics(lake: Path, table: str) -> str:
    """What the log says of each file is so; of texts it may name wider bounds."""
    actions = pa.table(DeltaTable(lake / table).get_add_actions(flatten=True)).to_pylist()
    for action in actions:
        file = lake / table / action["path"]
        rows = pq.read_table(file)
        said, so = (action["size_bytes"], action["num_records"]), (file.stat().st_size, rows.num_rows)
        assert said == so, f"{file.name}: the log has {said} bytes and rows, the file {so}"
        for column in rows.column_names:
            least, most, nulls = (action.get(f"{kind}.{column}") for kind in ("min", "max", "null_count"))
            assert nulls in (None, rows[column].null_count), f"{file.name}, {column}: the log has {nulls} nulls"
            if least is not None and most is not None:
                low, high = pc.min_max(rows[column]).as_py().values()
                fits = least <= low and most >= high if isinstance(low, str) else (least, most) == (low, high)
                assert fits, f"{file.name}, {column}: the log has {least} to {most}, the file {low} to {high}"
    return f"{len(actions)} files"


def filters(lake: Path, table: str) -> str:
    """A query for a value of a column finds its rows: no engine skips a file for what the log says or omits."""
    rows, lazy = read(lake, table), pl.scan_delta(str(lake / table))
    arrow = DeltaTable(lake / table).to_pyarrow_dataset()
    plain = [column for column, kind in rows.schema.items() if not kind.is_nested()]
    for column in plain:
        values, field = rows[column].unique().sort(), pc.field(column)
        for value in values.gather_every(max(1, len(values) // 3)):
            there, literal = rows[column].eq_missing(value).sum(), pa.scalar(value, arrow.schema.field(column).type)
            polars = lazy.filter(pl.col(column).eq_missing(value)).select(pl.len()).collect().item()
            pyarrow = arrow.count_rows(filter=field.is_null() if value is None else field == literal)
            counts = f"{column} = {value!r} has {there} rows, polars finds {polars}, deltalake's dataset {pyarrow}"
            assert there == polars == pyarrow, counts
    return f"{len(plain)} columns"


def unique_names(lake: Path, table: str) -> str:
    """No two rows have the same name, and none lacks a part of it."""
    names = read(lake, table).select(KEYS[table])
    bad = names.filter(names.is_duplicated() | pl.any_horizontal(pl.all().is_null()))
    assert bad.is_empty(), f"{bad.height} rows share or lack a name, such as {bad.head(1).to_dicts()}"
    return ", ".join(KEYS[table])


def picture_layout(lake: Path, table: str) -> str:
    """Pictures lie in small row groups and pages, without dictionary or statistics; files name their features."""
    largest = 0  # bytes of a column chunk: none of its pages is larger, nor a value in them
    for file in DeltaTable(lake / table).file_uris():
        meta, schema = pq.read_metadata(file), pq.read_schema(file)
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        assert list(said) == schema.names, f"{file}: info.features are {list(said)}, columns {schema.names}"
        assert said["image"] == {"_type": "Image"}, f"{file}: the feature of image is {said['image']}"
        for group in map(meta.row_group, range(meta.num_row_groups)):
            assert group.num_rows <= ROW_GROUP_ROWS, f"{file}: a row group of {group.num_rows} rows"
            [chunk] = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "image.bytes"]
            assert "DICTIONARY" not in str(chunk.encodings), f"{file}: image.bytes has a dictionary: {chunk.encodings}"
            assert chunk.statistics is None, f"{file}: image.bytes has statistics"
            largest = max(largest, chunk.total_uncompressed_size)
            assert largest < TOO_LARGE, f"{file}: a chunk of {largest} bytes, which may be one page"
    return f"info.features; chunks of at most {largest} bytes"


def pictures(lake: Path, table: str) -> str:
    """`datasets` gives the pictures as Pillow decodes them, at the size that they should have."""
    [key], files = KEYS[table], DeltaTable(lake / table).file_uris()
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=SCRATCH.name)
    assert isinstance(loaded.features["image"], datasets.Image), f"image is {loaded.features['image']}"
    raw = {row[key]: row for row in read(lake, table).to_dicts()}
    assert sorted(loaded[key]) == sorted(raw), f"datasets has {len(loaded)} rows, not the {len(raw)} of the table"
    size_of: dict[str, tuple[int, int]] = {}  # what one generator makes has one size
    for row in loaded:
        mine, theirs = raw[row[key]], row["image"]
        assert isinstance(theirs, Image.Image), f"{row[key]}: datasets gives {type(theirs)}"
        expected = Image.open(io.BytesIO(mine["image"]["bytes"]))
        info = mine.get("info")
        size = (info["width"], info["height"]) if info else size_of.setdefault(mine["generator"], expected.size)
        assert theirs.size == expected.size == size, f"{row[key]}: {theirs.size} and {expected.size}, not {size}"
        assert (theirs.mode, theirs.tobytes()) == (expected.mode, expected.tobytes()), f"{row[key]}: other pixels"
    return f"{len(loaded)} pictures"


def one_picture_each(lake: Path, table: str) -> str:
    """Each row is of one picture, real or synthetic, and of an epoch that is scheduled."""
    rows, real = read(lake, table), read(lake, "images").join(read(lake, "pixels"), on=["pixel_id", "source_id"])
    found = pl.concat([read(lake, "spectrum")["sample_id"], real["source_id"]]).value_counts(name="found")
    wrong = rows.join(found, on="sample_id", how="left").filter(pl.col("found").ne_missing(1))
    assert wrong.is_empty(), f"{wrong.height} rows are not of one picture, such as {wrong.head(1).to_dicts()}"
    lost = rows.join(read(lake, "schedule"), on=EPOCH, how="anti").height
    assert lost == 0 < rows.height, f"{lost} of {rows.height} rows are of no scheduled epoch"
    return f"{rows.height} rows, {rows['sample_id'].n_unique()} pictures"


def scored(lake: Path, table: str) -> str:
    """Each row is a candidate, with the scores that `scores` has for it."""
    slot = ["sample_id", "source_id", "label", "image_guidance", "seed", "attempt"]
    score = ["score_id", "sample_id", "text_similarity", "image_similarity"]
    rows, candidates = read(lake, table), read(lake, "candidates").select(*slot, "score_id")
    asked = rows.join(candidates, on=slot)
    found = asked.join(read(lake, "scores"), on=score).filter(pl.col("text_similarity").is_finite())
    counts = f"{rows.height} rows, {asked.height} of them candidates, {found.height} with the scores that scores has"
    assert found.height == asked.height == rows.height > 0, counts
    return counts


def earlier_versions(lake: Path, table: str) -> str:
    """Every version still opens; the first is empty, and the next is not."""
    versions, path = range(DeltaTable(lake / table).version() + 1), str(lake / table)
    counts = [DeltaTable(path, version=version).to_pyarrow_table().num_rows for version in versions]
    heights = [pl.read_delta(path, version=version).height for version in versions]
    assert heights == counts, f"rows by version: polars has {heights}, deltalake {counts}"
    assert len(counts) > 1 and counts[0] == 0 < counts[1], f"rows by version: {counts}"
    return f"rows by version: {counts}"


def main(lake: Path) -> int:
    """Runs every check, prints a line for each, and gives the exit code."""
    others = {path.parent.name for path in lake.glob("*/_delta_log")} - KEYS.keys()  # a pipeline's own steps
    tables = [table for table in [*KEYS, *sorted(others)] if table != "rejects" or (lake / table).exists()]
    checks: list[tuple[Callable[[Path, str], str], str]] = [
        *((check, table) for table in tables for check in (same_rows, true_statistics, filters)),
        *((unique_names, table) for table in tables if KEYS.get(table)),
        *((check, table) for table in ("pixels", "spectrum") for check in (picture_layout, pictures)),
        *((one_picture_each, "manifest"), (scored, "kept"), (earlier_versions, "candidates")),
    ]
    failures = 0
    for check, table in checks:
        try:
            print(f"ok      {table}: {check.__name__}: {check(lake, table)}", flush=True)
        except (Exception, pl.exceptions.PanicException) as error:  # whatever an engine raises is a finding
            failures += 1
            print(f"FAILED  {table}: {check.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(checks) - failures} of {len(checks)} checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
