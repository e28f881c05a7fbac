"""Parquet shards whose items can be read one by one.

Any Parquet reader opens them: one row an image or mask, with id, size, sha256 and bytes. Pages are
plain and uncompressed, so an item's bytes lie in one piece; the index says where, and reading one
item of a shard is reading one range of a file or an object.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.errors import DataError

_TEXT = [("id", pa.string()), ("kind", pa.string()), ("encoding", pa.string())]
_NUMBERS = [("width", pa.int32()), ("height", pa.int32()), ("size", pa.int64())]
SHARD = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (*_TEXT, *_NUMBERS, ("sha256", pa.string()), ("data", pa.large_binary()))
    ]
)
INDEX = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            *_TEXT,
            *_NUMBERS,
            ("sha256", pa.string()),
            ("shard", pa.int32()),
            ("offset", pa.int64()),
        )
    ]
)
_GAP = 4096  # bytes of a page header at most


@dataclass(frozen=True)
class Record:
    """One item to be packed.

    Attributes:
        name: id.
        kind: image or mask.
        encoding: "file" for the bytes of a file, "rgb" or "index" for pixels.
        width: pixels.
        height: pixels.
        data: the bytes.
    """

    name: str
    kind: str
    encoding: str
    width: int
    height: int
    data: bytes

    def row(self) -> dict[str, Any]:
        """Columns of `SHARD`."""
        return {
            "id": self.name,
            "kind": self.kind,
            "encoding": self.encoding,
            "width": self.width,
            "height": self.height,
            "size": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "data": self.data,
        }


def shard_bytes(records: Sequence[Record], number: int) -> tuple[bytes, list[dict[str, Any]]]:
    """A shard file, and the rows of `INDEX` that lead to its items.

    Args:
        records: at least one.
        number: of the shard.
    """
    rows = [record.row() for record in records]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=SHARD),
        sink,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        data_page_version="1.0",
        column_encoding="PLAIN",
        store_schema=False,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content, _indexed(content, rows, number)


def shard_name(number: int) -> str:
    """Name of a shard below the root."""
    return f"shards/{number:05d}.parquet"


def index_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """The index file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=INDEX), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def read_index(content: bytes, path: str) -> dict[str, list[Any]]:
    """Columns of the index.

    Raises:
        DataError: it is broken.
    """
    try:
        table = pq.read_table(pa.BufferReader(content), schema=INDEX)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is no index of shards ({error}). Pack the dataset again: python -m datasets "
            "pack."
        ) from error
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def _indexed(content: bytes, rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Where each item lies: plain pages hold a length of 4 bytes, then the bytes."""
    column = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(len(SHARD) - 1)
    offset, entries = column.data_page_offset, []
    for row in rows:
        wanted = struct.pack("<I", row["size"]) + row["data"]
        offset = content.find(wanted, offset, offset + _GAP + len(wanted))
        assert offset >= 0, f"the data of {row['id']} does not lie in one piece"
        entry = {name: value for name, value in row.items() if name != "data"}
        entries.append({**entry, "shard": number, "offset": offset + 4})
        offset += len(wanted)
    return entries
