"""Takes out of ONNX Runtime's CUDA provider the GPU code that a diffusion model on one kind of GPU never runs.

Code for other GPUs, and kernels of language models, become zeros, which compress to nothing: 284 MB become 30 MB. The
file keeps its size and layout, since the driver loads a piece of GPU code only when one of its kernels is launched.

The library has its GPU code in the section `.nv_fatbin`, as containers of entries: a header of its own for each, with
kind (2 is machine code), GPU and length, then the code, compressed by Zstandard.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SECTION = ".nv_fatbin"
CONTAINER = 0xBA55ED50
MACHINE_CODE = 2
UNUSED = re.compile(rb"_Z\w*?(moe|Moe|xqa|paged|Beam|fpA_intB)\w*")
"""Mixtures of experts, attention of language models with paged caches, beam search, weights of mixed integers."""


@dataclass(frozen=True)
class Entry:
    """A piece of GPU code: where its bytes are in the file, and for which GPU, such as 90."""

    kind: int
    gpu: int
    start: int
    end: int
    compressed: int
    """Bytes that are compressed; 0 if none are."""


def section(library: bytes, wanted: str) -> tuple[int, int] | None:
    """Where a section of an ELF file of 64 bits begins and ends."""
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", library, table + size * index) for index in range(count)]
    for header in headers:
        name = headers[names][4] + header[0]
        if library[name : library.index(b"\0", name)].decode() == wanted:
            return header[4], header[4] + header[5]
    return None


def entries(library: bytes, start: int, end: int) -> Iterator[Entry]:
    while start < end:
        magic, _, header, length = struct.unpack_from("<IHHQ", library, start)
        if magic != CONTAINER:
            start += 8  # Containers are aligned.
            continue
        entry, start = start + header, start + header + length
        while entry < start:
            kind, _, own, size, compressed = struct.unpack_from("<HHIQI", library, entry)
            (gpu,) = struct.unpack_from("<I", library, entry + 28)
            yield Entry(kind, gpu, entry + own, entry + own + size, compressed)
            entry += own + size


def is_used(library: bytes, entry: Entry, gpu: int) -> bool:
    if (entry.kind, entry.gpu) != (MACHINE_CODE, gpu):
        return False
    code = library[entry.start : entry.end]
    if entry.compressed:
        import zstandard

        code = zstandard.ZstdDecompressor().decompress(code[: entry.compressed], max_output_size=1 << 28)
    return UNUSED.search(code) is None


def trimmed(library: bytes, gpu: int) -> tuple[bytes, int, int]:
    """The library with only what a GPU of this kind may need, and how many bytes of GPU code were kept and dropped."""
    made, kept, dropped = bytearray(library), 0, 0
    place = section(library, SECTION)
    if place is None:
        raise ValueError(f"the library has no section `{SECTION}`: it is not ONNX Runtime's provider for CUDA")
    for entry in entries(library, *place):
        size = entry.end - entry.start
        if is_used(library, entry, gpu):
            kept += size
        else:
            made[entry.start : entry.end] = bytes(size)
            dropped += size
    if kept == 0:
        raise ValueError(f"the library has no code for GPUs of compute capability {gpu / 10}")
    return bytes(made), kept, dropped
