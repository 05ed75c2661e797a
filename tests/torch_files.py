"""PyTorch files made by hand: what torch writes, in a few lines, and what no torch would write."""

import pickle
import struct
import zipfile

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "bfloat16": "BFloat16Storage",
}
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Code:
    """Pickles as the call of a name: `Code("os.system", "true")`."""

    def __init__(self, name, *args):
        self.name, self.args = name, args


class Reference:
    """Pickles as a persistent id."""

    def __init__(self, *identity):
        self.identity = identity


def pickled(content, protocol=2):
    """Bytes of a pickle in which `Code` calls by name, without the named thing being there."""
    out = bytearray(b"\x80" + bytes([protocol]))

    def add(value):
        if isinstance(value, Reference):
            add(value.identity)
            out.extend(b"Q")
        elif isinstance(value, Code):
            module, _, name = value.name.rpartition(".")
            out.extend(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
            if value.args != ("",):
                add(tuple(value.args))
                out.extend(b"R")
        elif isinstance(value, tuple):
            out.extend(b"(")
            for item in value:
                add(item)
            out.extend(b"t")
        elif isinstance(value, dict):
            out.extend(b"}(")
            for item in value.items():
                add(item[0])
                add(item[1])
            out.extend(b"u")
        else:  # one instruction between the header and the stop
            out.extend(pickle.dumps(value, 2)[2:-1])

    add(content)
    return bytes(out + b".")


def named(name):
    """A name that is not called."""
    return Code(name, "")


def tensor(key, shape, dtype="float32", size=None, offset=0, strides=None, storage=None):
    """The pickle of a tensor over storage `key`."""
    count = 1
    contiguous = []
    for n in reversed(shape):
        contiguous.insert(0, count)
        count *= n
    size = count if size is None else size
    identity = ("storage", named(f"torch.{storage or STORAGES[dtype]}"), key, "cpu", size)
    strides = tuple(contiguous) if strides is None else strides
    hooks = Code("collections.OrderedDict")
    return Code("torch._utils._rebuild_tensor_v2", Reference(*identity), offset, tuple(shape), strides, False, hooks)


def write_zip(path, content, storages, *, order=b"little", compress=False, extra=()):
    """An archive of `torch.save`: content may hold `tensor(...)`; storages: {key: bytes}."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("x/data.pkl", pickled(content))
        file.writestr("x/byteorder", order)
        for key, data in storages.items():
            file.writestr(f"x/data/{key}", data)
        for name, data in extra:
            file.writestr(f"x/{name}", data)
    return path


def write_state_dict(path, tensors):
    """{key: array} as `torch.save` writes it."""
    content = {key: tensor(str(i), x.shape, x.dtype.name) for i, (key, x) in enumerate(tensors.items())}
    return write_zip(path, content, {str(i): x.tobytes() for i, x in enumerate(tensors.values())})


def write_script(path, tensors):
    """{key: array} as parameters of nested TorchScript modules, as `torch.jit.save` writes them."""
    root, classes, storages = {}, [], {}
    for i, (key, x) in enumerate(tensors.items()):
        node = root
        *modules, name = key.split(".")
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = tensor(str(i), x.shape, x.dtype.name)
        storages[str(i)] = x.tobytes()

    def module(tree):
        index = len(classes)
        classes.append([name for name, value in tree.items() if not isinstance(value, dict)])
        return Module(f"__torch__.net.M{index}", {k: module(v) if isinstance(v, dict) else v for k, v in tree.items()})

    content = module(root)
    code = "".join(
        f"class M{i}(Module):\n  __parameters__ = [{''.join(f'{chr(34)}{n}{chr(34)}, ' for n in names)}]\n"
        "  __buffers__ = []\n  training : bool\n"
        for i, names in enumerate(classes)
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("clip/data.pkl", _script_pickle(content))
        file.writestr("clip/constants.pkl", pickled(()))
        file.writestr("clip/code/__torch__/net.py", code)
        for key, data in storages.items():
            file.writestr(f"clip/data/{key}", data)
    return path


class Module:
    def __init__(self, name, attributes):
        self.name, self.attributes = name, attributes


def _script_pickle(content):
    def body(value):
        if not isinstance(value, Module):
            return pickled(value)[2:-1]
        package, _, name = value.name.rpartition(".")
        out = f"c{package}\n{name}\n".encode() + b")\x81}("
        for key, item in value.attributes.items():
            out += pickled(key)[2:-1] + body(item)
        return out + b"ub"

    return b"\x80\x02" + body(content) + b"."


def legacy(content, storages, *, little=True, sizes=None, protocol=_PROTOCOL):
    """The stream of torch before 1.6; content may hold `tensor(...)` with the sixth part of its reference."""
    out = pickle.dumps(_MAGIC, 2) + pickle.dumps(protocol, 2)
    out += pickle.dumps({"protocol_version": protocol, "little_endian": little, "type_sizes": {}}, 2)
    out += content + pickle.dumps(list(storages), 2)
    for key, (size, data) in storages.items():
        out += struct.pack("<q" if little else ">q", (sizes or {}).get(key, size)) + data
    return out
