"""Does to a lake what other Delta writers do.

    python touch.py optimize TABLE          # compacts its files, as OPTIMIZE does
    python touch.py shuffle TABLE           # gives each row the picture of the next
    python touch.py reject LAKE STEP ID     # moves a row of a step's table to `rejects`, as if it had failed
    python touch.py double LAKE STEP ID     # puts a row of a step's table in once more
"""

import sys
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake


def optimize(table: str) -> None:
    done = DeltaTable(table).optimize.compact()
    print(done["numFilesRemoved"], done["numFilesAdded"])


def shuffle(table: str) -> None:
    rows = DeltaTable(table).to_pyarrow_table()
    images = rows["image"].combine_chunks()
    moved = pa.concat_arrays([images[1:], images[:1]])
    place = rows.schema.get_field_index("image")
    write_deltalake(table, rows.set_column(place, rows.schema.field(place), moved), mode="overwrite")


KEYS = {"pixels": "pixel_id", "spectrum": "sample_id", "scores": "score_id"}


def reject(lake: str, step: str, name: str) -> None:
    key = KEYS[step]
    table = DeltaTable(str(Path(lake) / step))
    [source] = table.to_pyarrow_table(columns=[key, "source_id"], filters=[(key, "=", name)])["source_id"].to_pylist()
    table.delete(f"{key} = '{name}'")
    row = {"step": step, "unit": "none", "id": name, "source_id": source, "reason": "a test"}
    write_deltalake(str(Path(lake) / "rejects"), pa.Table.from_pylist([row]), mode="append")


def double(lake: str, step: str, name: str) -> None:
    table = str(Path(lake) / step)
    write_deltalake(table, DeltaTable(table).to_pyarrow_table(filters=[(KEYS[step], "=", name)]), mode="append")


if __name__ == "__main__":
    {"optimize": optimize, "shuffle": shuffle, "reject": reject, "double": double}[sys.argv[1]](*sys.argv[2:])
