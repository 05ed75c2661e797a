"""`.safetensors` files: 8 bytes of header size, a JSON table of {name: dtype, shape, offsets}, then the bytes.

Every size is compared with the file's before anything is read; arrays are read-only views of the mapped file.
"""

import json
import math
import mmap
import struct
from pathlib import Path

import numpy as np

from jaxseg.weight_files.pickled_tensors import dtype_of

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_MAX_HEADER = 100 << 20


def read(path) -> dict[str, np.ndarray]:
    """{key: array} of a file.

    Raises:
        ValueError: one line with the path: damaged, or sizes that the file does not have.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if path.stat().st_size < 8:
            raise ValueError(f"{path}: found {path.stat().st_size} bytes, expected a safetensors file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (header_size,) = struct.unpack("<Q", data[:8])
    available = len(data) - 8
    if header_size > min(available, _MAX_HEADER):
        raise ValueError(f"{path}: no safetensors file, or damaged: its header claims {header_size} of {available} bytes")
    try:
        header = json.loads(data[8 : 8 + header_size], object_pairs_hook=_without_duplicates)
        if not isinstance(header, dict):
            raise ValueError("the header is no table")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged safetensors header: {' '.join(str(error).split())[:200]}") from None
    header.pop("__metadata__", None)
    start, tensors, spans = 8 + header_size, {}, []
    for key, entry in header.items():
        dtype, shape, begin, end = _entry(f"{path}: {key}", entry, available - header_size)
        spans.append((begin, end, key))
        raw = np.frombuffer(data, np.uint8, end - begin, start + begin)
        tensors[key] = (raw != 0 if dtype.kind == "b" else raw.view(dtype)).reshape(shape)
    _check_cover(path, sorted(spans), available - header_size)
    return tensors


def _without_duplicates(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(where, entry, size):
    try:
        name, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = (*shape, begin, end)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{where}: an entry without dtype, shape and data_offsets") from None
    if name not in _DTYPES:
        raise ValueError(f"{where}: found dtype {name!r}, expected one of {', '.join(_DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) > 32:
        raise ValueError(f"{where}: found shape {shape} at {begin} to {end}, expected non-negative integers")
    dtype = dtype_of(_DTYPES[name])
    needed = math.prod(shape) * dtype.itemsize
    if end > size:
        raise ValueError(f"{where}: claims bytes {begin} to {end}, the file has {size}")
    if end - begin != needed:
        raise ValueError(f"{where}: {name} of shape {shape} needs {needed} bytes, found {end - begin}")
    return dtype, shape, begin, end


def _check_cover(path, spans, size):
    position = 0
    for begin, end, key in spans:
        if begin != position:
            raise ValueError(f"{path}: {key} begins at byte {begin}, expected {position}: tensors overlap or leave a hole")
        position = end
    if position != size:
        raise ValueError(f"{path}: the tensors end at byte {position}, the file at {size}")


def write(path, tensors):
    """Writes {key: array} whole or not at all, with the header that PyTorch's readers expect."""
    from safetensors.numpy import save_file

    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.touch()
    mode = part.stat().st_mode  # `save_file` makes files that others may not read
    save_file({key: np.asarray(value, order="C") for key, value in tensors.items()}, part, {"format": "pt"})
    part.chmod(mode)
    part.replace(path)
