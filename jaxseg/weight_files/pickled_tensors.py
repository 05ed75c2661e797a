"""What the names in a pickled checkpoint stand for: tensors, numpy arrays, and containers; everything else is unknown.

Tensors are views of their file: nothing is read before `array`, and nothing is larger than the file that it comes from.
"""

import dataclasses
import math
import re
from collections import OrderedDict
from collections.abc import Callable

import ml_dtypes
import numpy as np

from jaxseg.weight_files.restricted_pickle import Bag, Named, PickleError

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
)
_DTYPE_CODE = re.compile(r"[<>=|]?([biufc]\d{1,2}|[SUa]\d{1,5})")
# Classes whose objects are found beside weights; they become bags of attributes.
_BAGS = (
    *("argparse.Namespace", "types.SimpleNamespace", "easydict.EasyDict", "addict.addict.Dict"),
    *("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode", "detectron2.config.CfgNode"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.Metadata"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.nodes.AnyNode"),
    *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict"),
    *("pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib.PureWindowsPath", "pathlib.Path"),
    *("pathlib._local.PosixPath", "datetime.datetime", "datetime.timedelta"),
)


def dtype_of(name: str) -> np.dtype:
    """"bfloat16" -> its numpy dtype."""
    return np.dtype(getattr(ml_dtypes, name, None) or name)


@dataclasses.dataclass(frozen=True)
class Storage:
    """Elements on disk, one after another.

    Attributes:
        dtype: of the elements.
        size: number of elements.
        read: gives their bytes, in this machine's byte order, as a uint8 array without a copy where possible.
        limit: bytes of the file, which no tensor exceeds.
    """

    dtype: np.dtype
    size: int
    read: Callable[[], np.ndarray]
    limit: int

    def viewed(self, dtype):
        """The same bytes as elements of another dtype."""
        return dataclasses.replace(self, dtype=dtype, size=self.size * self.dtype.itemsize // dtype.itemsize)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A read-only view of the file."""
        dtype = self.storage.dtype
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype)
        flat = self.storage.read()[: self.storage.size * dtype.itemsize]
        flat = flat != 0 if dtype.kind == "b" else flat.view(dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)


class NumpyDtype:
    """A pickled dtype of plain numbers or strings."""

    def __init__(self, code, *_):
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise PickleError(f"holds a numpy array of dtype {code!r}, expected numbers or strings")
        self.dtype = np.dtype(code)

    def set_state(self, state):
        if state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])
        if state[2] is not None or state[3] is not None:
            raise PickleError("holds a numpy array of records, expected numbers or strings")


class NumpyArray:
    """A pickled array; its values come with the state."""

    def __init__(self, *_):
        self.values = None

    def set_state(self, state):
        _, shape, dtype, is_fortran, data = state
        self.values = _numpy_values(dtype, data, shape, "F" if is_fortran else "C")

    def array(self) -> np.ndarray:
        if self.values is None:
            raise PickleError("holds a numpy array without values")
        return self.values


def as_array(value) -> np.ndarray | None:
    """The array of a tensor or numpy array, None for anything else."""
    return value.array() if is_array(value) else None


def is_array(value) -> bool:
    return isinstance(value, Tensor | NumpyArray)


def _numpy_values(dtype, data, shape, order="C"):
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin-1")
    if not isinstance(dtype, NumpyDtype) or not isinstance(data, bytes | bytearray):
        raise PickleError("holds a numpy array of Python objects, expected numbers or strings")
    dtype, shape = dtype.dtype, _sizes(shape, "shape")
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(data):
        raise PickleError(f"numpy array of shape {list(shape)} and {dtype}: found {len(data)} bytes")
    values = np.frombuffer(data, dtype).reshape(shape, order=order)
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def _numpy_scalar(dtype, data=b""):
    return _numpy_values(dtype, data, ())[()]


def _numpy_frombuffer(data, dtype, shape, order="C"):
    array = NumpyArray()
    array.values = _numpy_values(dtype, data, shape, order)
    return array


def _encoded(text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise PickleError(f"encodes text as {encoding!r}, expected latin1")
    return text.encode("latin-1")


def _sizes(values, what):
    values = tuple(values)
    if not all(type(n) is int and n >= 0 for n in values) or len(values) > 32:
        raise PickleError(f"tensor of {what} {list(values)[:40]}, expected at most 32 non-negative integers")
    return values


def _rebuild_tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, Storage):
        raise PickleError(f"a tensor's storage is a {type(storage).__name__}")
    (offset,), shape, strides = _sizes([offset], "offset"), _sizes(shape, "shape"), _sizes(strides, "strides")
    count = math.prod(shape)
    if len(shape) != len(strides):
        raise PickleError(f"tensor of shape {list(shape)} with strides {list(strides)}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if count and last >= storage.size:
        raise PickleError(
            f"tensor of shape {list(shape)}, strides {list(strides)} and offset {offset} reaches element {last}, "
            f"its storage has {storage.size}"
        )
    if count * storage.dtype.itemsize > storage.limit:
        size = count * storage.dtype.itemsize
        raise PickleError(f"tensor of shape {list(shape)} takes {size} bytes, the file has {storage.limit}")
    return Tensor(storage, offset, shape, strides)


def _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata=None):
    if metadata:
        raise PickleError(f"a tensor has flags {sorted(map(str, metadata))}, which are not read")
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None):
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise PickleError("a tensor without storage or dtype")
    return _rebuild_tensor_v2(storage.viewed(dtype), offset, shape, strides, requires_grad, hooks, metadata)


def _rebuild_parameter(data, *_):
    if not is_array(data):
        raise PickleError(f"a parameter that is a {type(data).__name__}")
    return data


def _rebuild_from_type(function, _, args, state=None):
    if not isinstance(function, Named) or not function.name.startswith("torch._utils._rebuild_"):
        raise PickleError("a tensor that is rebuilt by something unknown")
    return function.make(*args)


def _ordered_dict(pairs=()):
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return OrderedDict((key if isinstance(key, str | int) else str(key), value) for key, value in pairs)


_FUNCTIONS = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *parts: ":".join(map(str, parts)),
    "torch.jit._pickle.build_intlist": lambda x: x,
    "torch.jit._pickle.build_doublelist": lambda x: x,
    "torch.jit._pickle.build_boollist": lambda x: x,
    "torch.jit._pickle.build_tensorlist": lambda x: x,
    "torch.jit._pickle.restore_type_tag": lambda x, _: x,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda _=None, pairs=(): _ordered_dict(pairs),
    "collections.Counter": _ordered_dict,
    "builtins.set": lambda values=(): list(values),
    "builtins.frozenset": lambda values=(): list(values),
    "builtins.bytearray": lambda data=b"", encoding="latin1": data if isinstance(data, bytes) else _encoded(data, encoding),
    "builtins.complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "builtins.slice": lambda *parts: tuple(parts),
    "_codecs.encode": _encoded,
    "numpy.dtype": NumpyDtype,
    "numpy.core.multiarray._reconstruct": NumpyArray,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.numeric._frombuffer": _numpy_frombuffer,
}
# Classes that are only named, as a storage's type or a factory's argument.
_CLASSES = (
    *("numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    *("builtins.dict", "builtins.list", "builtins.tuple", "builtins.int", "builtins.float", "builtins.str", "builtins.bool"),
)


def find(name: str) -> Named | None:
    """What a pickled name stands for, TorchScript's classes included."""
    if name.startswith("__builtin__."):  # Python 2
        name = "builtins." + name.partition(".")[2]
    name = name.replace("numpy._core.", "numpy.core.", 1)
    module, _, last = name.rpartition(".")
    if name in _FUNCTIONS:
        return Named(name, _FUNCTIONS[name])
    if module in ("torch", "torch.storage", "torch.cuda") and last in _STORAGES:
        return Named(name, value=dtype_of(_STORAGES[last]))
    if module == "torch" and last in _DTYPES:
        return Named(name, value=dtype_of(last))
    if name in _BAGS or name.startswith("__torch__."):
        return Named(name, lambda *args: Bag(name, args))
    return Named(name) if name in _CLASSES else None
