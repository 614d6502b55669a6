"""Does to a lake what other Delta writers do.

    python touch.py optimize TABLE          # compacts its files, as OPTIMIZE does
    python touch.py checkpoint TABLE        # writes a checkpoint of its latest version, and the hint that names it
    python touch.py shuffle TABLE           # gives each row the picture of the next
    python touch.py reject LAKE STEP ID     # moves a row of a step's table to `rejects`, as if it had failed
    python touch.py double LAKE STEP ID     # puts a row of a step's table in once more
    python touch.py delete TABLE WHERE      # deletes rows
    python touch.py update TABLE COLUMN VALUE WHERE
    python touch.py restore TABLE VERSION   # as of an earlier version; a negative one counts from the latest
    python touch.py overwrite TABLE ROWS    # leaves only the first rows
    python touch.py vector TABLE ROWS       # deletes the first rows of a file by a deletion vector, as Spark does
    python touch.py column TABLE NAME       # adds a column of strings
    python touch.py require TABLE NAME      # adds a column that must not be null
    python touch.py constrain TABLE SQL     # adds a constraint
    python touch.py set TABLE KEY VALUE     # sets a table property
    python touch.py map TABLE               # maps columns to other names, as ALTER TABLE does
    python touch.py feature TABLE NAME      # needs a table feature of its writers
"""

import itertools
import json
import struct
import sys
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.schema import Field, PrimitiveType


def optimize(table: str) -> None:
    done = DeltaTable(table).optimize.compact()
    print(done["numFilesRemoved"], done["numFilesAdded"])


def checkpoint(table: str) -> None:
    DeltaTable(table).create_checkpoint()


def shuffle(table: str) -> None:
    rows = DeltaTable(table).to_pyarrow_table()
    images = rows["image"].combine_chunks()
    moved = pa.concat_arrays([images[1:], images[:1]])
    place = rows.schema.get_field_index("image")
    write_deltalake(table, rows.set_column(place, rows.schema.field(place), moved), mode="overwrite")


KEYS = {"pixels": "pixel_id", "spectrum": "sample_id", "scores": "score_id", "kept": "sample_id"}


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


def delete(table: str, where: str) -> None:
    assert DeltaTable(table).delete(where)["num_deleted_rows"], where


def update(table: str, column: str, value: str, where: str) -> None:
    assert DeltaTable(table).update({column: value}, predicate=where)["num_updated_rows"], where


def restore(table: str, version: str) -> None:
    delta = DeltaTable(table)
    delta.restore(int(version) if int(version) >= 0 else delta.version() + int(version))


def overwrite(table: str, rows: str) -> None:
    write_deltalake(table, DeltaTable(table).to_pyarrow_table()[: int(rows)], mode="overwrite")


def column(table: str, name: str) -> None:
    DeltaTable(table).alter.add_columns([Field(name, PrimitiveType("string"), nullable=True)])


def constrain(table: str, sql: str) -> None:
    DeltaTable(table).alter.add_constraint({"theirs": sql})


def put(table: str, key: str, value: str) -> None:
    DeltaTable(table).alter.set_table_properties({key: value})


def log(table: str) -> tuple[list[dict], Path]:
    """All actions of a table, and its next entry. There must be no checkpoint."""
    entries = sorted((Path(table) / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for entry in entries for line in entry.read_text().splitlines()]
    return actions, entries[-1].with_name(f"{int(entries[-1].stem) + 1:020d}.json")


def commit(entry: Path, *actions: dict, operation: str = "SET TBLPROPERTIES") -> None:
    """Writes an entry by hand, for what deltalake does not do."""
    info = {"commitInfo": {"timestamp": 0, "operation": operation, "engineInfo": "Apache-Spark/4.0 Delta-Lake/4.0"}}
    entry.write_text("".join(json.dumps(action) + "\n" for action in [info, *actions]))


def protocol(table: str, reader: list[str], writer: list[str]) -> dict:
    """The protocol with further features."""
    now = DeltaTable(table).protocol()
    reader, writer = [sorted({*(old or []), *new}) for old, new in
                      [(now.reader_features, reader), (now.writer_features, [*writer, "appendOnly", "invariants"])]]
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer}}


def z85(data: bytes) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    data += b"\0" * (-len(data) % 4)
    values = struct.unpack(f">{len(data) // 4}I", data)
    return "".join(digits[value // 85**place % 85] for value in values for place in (4, 3, 2, 1, 0))


def vector(table: str, rows: str) -> None:
    actions, entry = log(table)
    live = {file.split("/")[-1] for file in DeltaTable(table).file_uris()}
    adds = [action["add"] for action in actions if action.get("add", {}).get("path") in live]
    add = max(adds, key=lambda add: json.loads(add["stats"])["numRecords"])
    # a portable bitmap of 32 bits in one of 64: cookie, containers, key and cardinality - 1, offset, values
    values = range(int(rows))
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(values) - 1, 16) + b"".join(struct.pack("<H", row) for row in values)
    body = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    deleted = {"storageType": "i", "pathOrInlineDv": z85(body), "sizeInBytes": len(body), "cardinality": len(values)}
    remove = {"path": add["path"], "deletionTimestamp": 0, "dataChange": True, "size": add["size"]}
    features = protocol(table, ["deletionVectors"], ["deletionVectors"])
    commit(entry, features, {"remove": remove}, {"add": {**add, "deletionVector": deleted}}, operation="DELETE")


def changed_columns(table: str, change) -> tuple[dict, Path]:
    actions, entry = log(table)
    metadata = [action["metaData"] for action in actions if "metaData" in action][-1]
    schema = json.loads(metadata["schemaString"])
    change(schema["fields"])
    return {**metadata, "schemaString": json.dumps(schema)}, entry


def require(table: str, name: str) -> None:
    field = {"name": name, "type": "string", "nullable": False, "metadata": {}}
    metadata, entry = changed_columns(table, lambda fields: fields.append(field))
    commit(entry, {"metaData": metadata})


def map_columns(table: str) -> None:
    numbers = itertools.count(1)

    def name(fields: list[dict]) -> None:
        for field in fields:
            physical = {"delta.columnMapping.id": next(numbers), "delta.columnMapping.physicalName": field["name"]}
            field["metadata"] = physical
            if isinstance(field["type"], dict):
                name(field["type"].get("fields", []))

    metadata, entry = changed_columns(table, name)
    mapping = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": str(next(numbers))}
    metadata["configuration"] = {**metadata["configuration"], **mapping}
    commit(entry, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, {"metaData": metadata})


def feature(table: str, name: str) -> None:
    _, entry = log(table)
    commit(entry, protocol(table, [], [name]))


COMMANDS = {
    "optimize": optimize,
    "checkpoint": checkpoint,
    "shuffle": shuffle,
    "reject": reject,
    "double": double,
    "delete": delete,
    "update": update,
    "restore": restore,
    "overwrite": overwrite,
    "vector": vector,
    "column": column,
    "require": require,
    "constrain": constrain,
    "set": put,
    "map": map_columns,
    "feature": feature,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
