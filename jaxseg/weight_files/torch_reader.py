"""PyTorch's files without PyTorch: `.pth`, `.pt`, `.bin`, `.ckpt`, `.pkl`. Nothing in a file is executed.

Read are zip archives of `torch.save`, TorchScript archives (their parameters and buffers), the stream that `torch.save` wrote
before version 1.6, and plain pickles of numpy arrays or tensors. Tensors are read-only views of the mapped file.
"""

import ast
import io
import lzma
import mmap
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.weight_files import restricted_pickle
from jaxseg.weight_files.pickled_tensors import Storage, find
from jaxseg.weight_files.restricted_pickle import Named, PickleError

_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of the stream before 1.6
_PROTOCOL = 1001
_MAX_CODE = 1 << 24  # bytes of one source file in a TorchScript archive
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, OSError),
)
_LFS = b"version https://git-lfs"


class TorchFile(NamedTuple):
    """What a file holds.

    Attributes:
        kind: "torch zip", "torchscript", "torch legacy" or "pickle".
        content: containers of numbers, strings, bags, and of stand-ins that `pickled_tensors.as_array` makes arrays.
        members: TorchScript: {class name: names of its parameters and buffers}.
    """

    kind: str
    content: Any
    members: dict[str, tuple[str, ...]]


def read(path) -> TorchFile:
    """The content of a file.

    Raises:
        ValueError: one line with the path: it names what is not a part of weights, claims sizes that it does not have, or is
            damaged or something else.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise ValueError(f"{path}: the file is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _read(data)
    except PickleError as error:
        raise ValueError(f"{path}: {error}") from None
    except _ZIP_ERRORS as error:
        raise ValueError(f"{path}: damaged zip archive: {' '.join(str(error).split())[:200]}") from None


def _read(data):
    start = data[:512]
    if start.startswith(b"PK\x03\x04"):
        return _Archive(data).read()
    if start.startswith(_LFS):
        raise PickleError("this is the pointer of a Git LFS file, not the file; fetch it with `git lfs pull`")
    if start[257:262] == b"ustar":
        raise PickleError("a tar archive (PyTorch before 0.1.10), which is not read")
    if start[:1] not in (b"\x80", b"(", b"}", b"]", b"c"):
        raise PickleError("neither a zip archive nor a pickle, so no PyTorch file")
    return _read_stream(data)


def _read_stream(data):
    """A plain pickle, or the stream before 1.6: magic number, protocol, system, object, storage keys, storages."""

    def find_here(name):
        if name == "torch.storage._load_from_bytes":  # a tensor in a plain pickle: a stream inside
            return Named(name, lambda stream: _Legacy(stream).read())
        return find(name)

    first = restricted_pickle.load(data, find_here)
    if first == _MAGIC and type(first) is int:
        data.seek(0)
        return TorchFile("torch legacy", _Legacy(data).read(), {})
    return TorchFile("pickle", first, {})


def _native(raw, itemsize, little, is_complex=False):
    """The bytes of a storage in this machine's order."""
    size = itemsize // 2 if is_complex else itemsize
    if little == (sys.byteorder == "little") or size == 1:
        return raw
    return raw.view(f"u{size}").byteswap().view(np.uint8) if len(raw) else raw


class _Legacy:
    """The stream before 1.6; also of a storage that a plain pickle holds as bytes."""

    def __init__(self, stream):
        self._stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        self._limit = len(stream)
        self._buffer = stream
        self._dtypes, self._sizes, self._raw, self._little = {}, {}, {}, True

    def read(self):
        magic, protocol, system = (restricted_pickle.load(self._stream, find) for _ in range(3))
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise PickleError(f"a stream of protocol {protocol!r}, expected {_PROTOCOL}")
        self._little = system.get("little_endian", True) if isinstance(system, dict) else True
        content = restricted_pickle.load(self._stream, find, self._storage)
        keys = restricted_pickle.load(self._stream, find)
        if not isinstance(keys, list) or set(map(str, keys)) != set(self._dtypes) or len(keys) != len(self._dtypes):
            raise PickleError("the list of storages is not that of the tensors")
        position = self._stream.tell()
        for key in map(str, keys):
            position = self._locate(key, position)
        return content

    def _storage(self, identity):
        try:
            kind, dtype, key, _, size, view = identity if len(identity) == 6 else (*identity, None)
        except (TypeError, ValueError):
            raise PickleError("a reference to a storage without its parts") from None
        dtype = _checked(kind, dtype, size)
        key = str(key)
        if self._dtypes.setdefault(key, dtype).itemsize != dtype.itemsize:
            raise PickleError(f"storage {key} has elements of two sizes")
        self._sizes[key] = max(self._sizes.get(key, 0), size)
        start = 0
        if view is not None:
            _, start, view_size = view
            if type(start) is not int or type(view_size) is not int or not (0 <= start <= start + view_size <= size):
                raise PickleError(f"storage {key}: a view of elements {start} to {start + view_size}, it has {size}")
            size = view_size
        skip = start * dtype.itemsize
        return Storage(dtype, size, lambda: self._bytes(key, dtype)[skip:], self._limit)

    def _locate(self, key, position):
        """Checks one storage and returns where the next begins."""
        header = bytes(self._buffer[position : position + 8])
        if len(header) < 8:
            raise PickleError(f"storage {key}: the file ends before it")
        (size,) = struct.unpack("<q" if self._little else ">q", header)
        start, num_bytes = position + 8, size * self._dtypes[key].itemsize
        if size < self._sizes[key]:
            raise PickleError(f"storage {key}: holds {size} elements, its tensors need {self._sizes[key]}")
        if start + num_bytes > self._limit:
            raise PickleError(f"storage {key}: claims {num_bytes} bytes, the file has {self._limit - start} left")
        self._raw[key] = start, num_bytes
        return start + num_bytes

    def _bytes(self, key, dtype):
        start, num_bytes = self._raw[key]
        raw = np.frombuffer(self._buffer, np.uint8, num_bytes, start)
        return _native(raw, dtype.itemsize, self._little, dtype.kind == "c")


def _checked(kind, dtype, size):
    """The dtype of a storage reference whose parts are what they must be."""
    if kind != "storage":
        raise PickleError(f"a reference to a {str(kind)[:40]!r}, expected tensors only")
    if not isinstance(dtype, np.dtype) or type(size) is not int or size < 0:
        raise PickleError("a storage without dtype or size")
    return dtype


class _Archive:
    """A zip archive of `torch.save` or `torch.jit.save`: `<name>/data.pkl`, `<name>/data/<key>`, code, constants."""

    def __init__(self, data):
        self._data = data
        self._zip = zipfile.ZipFile(_Plain(data))
        names = self._zip.namelist()
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise PickleError(f"archive: {twice[0]!r} is in it twice")
        roots = [name for name in names if name.count("/") <= 1 and name.rpartition("/")[2] == "data.pkl"]
        if len(roots) != 1:
            raise PickleError("a zip archive without data.pkl, so no PyTorch file")
        self._prefix = roots[0][: -len("data.pkl")]
        order = self._entry("byteorder").tobytes().strip() if self._has("byteorder") else b"little"
        if order not in (b"little", b"big"):
            raise PickleError(f"archive: byte order {order[:20]!r}, expected little or big")
        self._little = order == b"little"

    def read(self):
        stream = io.BytesIO(self._entry("data.pkl").tobytes())
        content = restricted_pickle.load(stream, find, self._storage)
        is_script = self._has("constants.pkl")
        return TorchFile("torchscript" if is_script else "torch zip", content, self._members() if is_script else {})

    def _has(self, name):
        return self._prefix + name in self._zip.NameToInfo

    def _entry(self, name):
        """The bytes of a stored entry, a view of the file."""
        info = self._zip.getinfo(self._prefix + name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise PickleError(f"archive: {info.filename!r} is compressed or encrypted, which PyTorch never does")
        header = self._data[info.header_offset : info.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise PickleError(f"archive: {info.filename!r} is not where the directory says")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > len(self._data):
            left = max(len(self._data) - start, 0)
            raise PickleError(f"archive: {info.filename!r} claims {info.file_size} bytes, the file has {left} left")
        return np.frombuffer(self._data, np.uint8, info.file_size, start)

    def _storage(self, identity):
        try:
            kind, dtype, key, _, size = identity
        except (TypeError, ValueError):
            raise PickleError("a reference to a storage without its parts") from None
        dtype, name = _checked(kind, dtype, size), f"data/{key}"
        if not self._has(name):
            raise PickleError(f"storage {key}: the archive has no {self._prefix + name!r}")
        raw = self._entry(name)
        if len(raw) < size * dtype.itemsize:
            raise PickleError(f"storage {key}: needs {size * dtype.itemsize} bytes, {self._prefix + name!r} has {len(raw)}")

        def native():
            return _native(raw[: size * dtype.itemsize], dtype.itemsize, self._little, dtype.kind == "c")

        return Storage(dtype, size, native, len(self._data))

    def _members(self):
        """{class name: parameters and buffers}, from the headers of the classes in the archive's code, which is only read."""
        members, folder = {}, self._prefix + "code/"
        for info in self._zip.infolist():
            if not (info.filename.startswith(folder) and info.filename.endswith(".py")):
                continue
            if info.file_size > _MAX_CODE:
                raise PickleError(f"archive: {info.filename!r} claims {info.file_size} bytes of code")
            with self._zip.open(info) as file:
                text = file.read(_MAX_CODE).decode("utf-8", "replace")
            module = info.filename[len(folder) : -len(".py")].replace("/", ".")
            for part in re.split(r"^class ", text, flags=re.MULTILINE)[1:]:
                lists = re.findall(r"^  __(?:parameters|buffers)__ = (\[[^\]\n]*\])", part, re.MULTILINE)
                if lists:
                    members[f"{module}.{part.partition('(')[0].strip()}"] = _strings(lists)
        return members


def _strings(lists):
    try:
        values = [value for text in lists for value in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        raise PickleError("archive: a class whose parameters cannot be read") from None
    return tuple(map(str, values))


class _Plain(io.RawIOBase):
    """A mapped file as a stream of its own, since `zipfile` moves the position."""

    def __init__(self, data):
        self._data, self._position = data, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        base = (0, self._position, len(self._data))[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self):
        return self._position

    def read(self, size=-1):
        end = len(self._data) if size is None or size < 0 else self._position + size
        chunk = self._data[self._position : end]
        self._position += len(chunk)
        return chunk
