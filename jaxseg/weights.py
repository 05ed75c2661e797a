"""Checkpoint conversion: an exact two-way map between original state dicts and parameter trees.

Each module's rules stand beside it (`encoders/clip/weights.py`, `systems/<name>/weights.py`) as a list of `Rule`, composed by
`prefixed`. Every key of a checkpoint is used once or named in an ignore list, every parameter is filled, all shapes are equal;
whatever is wrong is reported in one `ConversionError`.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.typing import Params


class ConversionError(ValueError):
    """All that is wrong with a checkpoint, one line per key."""


class Transform(NamedTuple):
    """`to_jax`: one tensor -> tuple of arrays; `to_torch`: tuple of arrays -> the tensor. Exact inverses of each other."""

    to_jax: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    to_torch: Callable[[Sequence[np.ndarray]], np.ndarray]


def _one(forward, backward):
    return Transform(lambda x: (forward(x),), lambda xs: backward(xs[0]))


IDENTITY = _one(lambda x: x, lambda x: x)
LINEAR = _one(np.transpose, np.transpose)  # (out, in) <-> (in, out)
CONV = _one(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW <-> HWIO
# (in, out, kh, kw) <-> (kh, kw, in, out), the order in which out[y*kh+i, x*kw+j] = sum_c in[y, x, c] kernel[i, j, c].
CONV_TRANSPOSE = _one(lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1))


def split_linear(parts):
    """A packed projection (parts * out, in) <-> `parts` kernels (in, out)."""
    return Transform(
        lambda x: tuple(part.T for part in np.split(x, parts)), lambda xs: np.concatenate([x.T for x in xs])
    )


def split_bias(parts):
    """A packed bias (parts * out) <-> `parts` biases (out)."""
    return Transform(lambda x: tuple(np.split(x, parts)), np.concatenate)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One template of checkpoint keys and where their tensors go.

    `key` and `path` hold the same `{name}` placeholders, which stand for integers: `"blocks.{i}.norm1.weight"` and
    `"decoder/block_{i}/ln_1/scale"`. With several paths the transform gives one array for each.
    """

    key: str
    path: str | tuple[str, ...]
    transform: Transform = IDENTITY

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)


@dataclasses.dataclass(frozen=True)
class Format:
    """One original layout of a system's checkpoints.

    Attributes:
        name: "openai", "timojl", "huggingface", ...
        detect: `(keys) -> bool`, whether a state dict has this layout.
        infer: `(shapes: {key: shape}) -> dict` of the `config.model` fields that the file decides.
        rules: `(model fields) -> [Rule]`.
        ignore: regexes of keys that are known and not used, each with its reason: `((regex, reason), ...)`.
        merge: `([state dict, ...]) -> state dict` where a model's weights lie in several files; by default their union.
        settings: `(config.json beside the weights) -> dict` of further `config.model` fields that it decides.
        free: names of fields of `settings` in which a config may differ from the file.
        part: the top-level folder of parameters that files hold; "" = all. Such weights are for `init_from`.
    """

    name: str
    detect: Callable[[set[str]], bool]
    infer: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]]
    rules: Callable[[Mapping[str, Any]], list[Rule]]
    ignore: tuple[tuple[str, str], ...] = ()
    merge: Callable[[Sequence[Mapping[str, np.ndarray]]], dict[str, np.ndarray]] | None = None
    settings: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    free: tuple[str, ...] = ()
    part: str = ""


def prefixed(rules: Iterable[Rule], key_prefix="", path_prefix="") -> list[Rule]:
    """The rules of a submodule, seen from its parent."""
    return [
        Rule(key_prefix + r.key, tuple(path_prefix + p for p in r.paths), r.transform) for r in rules
    ]


def linear_rules(key, path, bias=True):
    rules = [Rule(f"{key}.weight", f"{path}/kernel", LINEAR)]
    return rules + [Rule(f"{key}.bias", f"{path}/bias")] if bias else rules


def norm_rules(key, path):
    return [Rule(f"{key}.weight", f"{path}/scale"), Rule(f"{key}.bias", f"{path}/bias")]


def conv_rules(key, path, bias=True):
    rules = [Rule(f"{key}.weight", f"{path}/kernel", CONV)]
    return rules + [Rule(f"{key}.bias", f"{path}/bias")] if bias else rules


def batch_norm_rules(key, path):
    """Of `FrozenBatchNorm`."""
    names = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))
    return [Rule(f"{key}.{theirs}", f"{path}/{ours}") for theirs, ours in names]


def packed_attention_rules(key, path):
    """torch's MultiheadAttention: `in_proj_*` in the order q, k, v, then `out_proj`."""
    q_k_v = [f"{path}/{x}" for x in "qkv"]
    return [
        Rule(f"{key}.in_proj_weight", tuple(f"{p}/kernel" for p in q_k_v), split_linear(3)),
        Rule(f"{key}.in_proj_bias", tuple(f"{p}/bias" for p in q_k_v), split_bias(3)),
        *linear_rules(f"{key}.out_proj", f"{path}/out"),
    ]


def separate_attention_rules(key, path):
    """Hugging Face's attention: `q_proj`, `k_proj`, `v_proj`, `out_proj`."""
    names = (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "out"))
    return [rule for theirs, ours in names for rule in linear_rules(f"{key}.{theirs}", f"{path}/{ours}")]


def count(shapes, pattern) -> int:
    """How many different numbers the group of `pattern` takes among the keys."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def below(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of {key: tensor, or shape} whose keys start with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def require(shapes, what, *keys) -> None:
    """Refuses {key: shape} that lacks one of the keys: it is not `what`."""
    missing = [key for key in keys if key not in shapes]
    if missing:
        raise ValueError(f"not {what}: it lacks {', '.join(missing)}")


def flatten(tree: Params) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = value
    return tree


_STACKED = re.compile(r"(^|/)blocks/")
_UNROLLED = re.compile(r"(^|/)block_(\d+)/")


def match_layout(flat: Mapping[str, np.ndarray], target_paths: Iterable[str]) -> dict[str, np.ndarray]:
    """The same parameters in the layout of `target_paths`: blocks stacked (`blocks/x` [L, ...]) or unrolled (`block_i/x`).

    Paths that fit neither way are kept as they are, so that the caller reports them.
    """
    targets, flat = set(target_paths), dict(flat)
    for path in [p for p in flat if p not in targets and _STACKED.search(p)]:
        names = [_STACKED.sub(rf"\1block_{i}/", path, count=1) for i in range(len(flat[path]))]
        if all(name in targets for name in names):
            flat |= dict(zip(names, flat.pop(path), strict=True))
    groups: dict[str, dict[int, str]] = {}
    for path in [p for p in flat if p not in targets]:
        if match := _UNROLLED.search(path):
            stacked = path[: match.start()] + match[1] + "blocks/" + path[match.end() :]
            if stacked in targets:
                groups.setdefault(stacked, {})[int(match[2])] = path
    for stacked, members in groups.items():
        if sorted(members) == list(range(len(members))):
            flat[stacked] = np.stack([flat.pop(members[i]) for i in range(len(members))])
    return flat


def unrolled_paths(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{path: shape} with stacked blocks written out, as conversion rules name them."""
    out = {}
    for path, leaf in shapes.items():
        if _STACKED.search(path):
            names = (_STACKED.sub(rf"\1block_{i}/", path, count=1) for i in range(leaf.shape[0]))
            out |= {name: tuple(leaf.shape[1:]) for name in names}
        else:
            out[path] = tuple(leaf.shape)
    return out


def _regex(template):
    """The regex of a template; a placeholder that occurs twice must have the same value."""
    pattern, seen = "", set()
    for literal, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        pattern += re.escape(literal)
        if name:
            pattern += f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)"
            seen.add(name)
    return re.compile(pattern)


def assign(keys: Iterable[str], rules: Sequence[Rule]) -> dict[str, tuple[Rule, tuple[str, ...]]]:
    """{key: (rule, parameter paths)} of the keys that some rule knows; the first rule that matches wins."""
    compiled = [(_regex(rule.key), rule) for rule in rules]
    found = {}
    for key in keys:
        for regex, rule in compiled:
            if match := regex.fullmatch(key):
                found[key] = rule, tuple(path.format(**match.groupdict()) for path in rule.paths)
                break
    return found


def to_params(tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], target, ignore=()) -> dict[str, Any]:
    """A parameter tree from a state dict.

    Args:
        tensors: the state dict.
        rules: how its keys map to parameters.
        target: tree of anything with `.shape` and `.dtype`: the parameters that must come out, blocks stacked or unrolled.
        ignore: `((regex, reason), ...)` of keys that may stay unused.

    Raises:
        ConversionError: with every unused, missing, misshapen, duplicate and NaN tensor.
    """
    target = flatten(target)
    used = [key for key in tensors if not ignored(key, ignore)]
    shapes, found = unrolled_paths(target), assign(used, rules)
    wrong, flat, origin = [], {}, {}
    for key in used:
        tensor = tensors[key]
        if key not in found:
            wrong.append(_unknown(key, tensor, rules))
            continue
        rule, paths = found[key]
        unplaced = [path for path in paths if path not in shapes]
        if unplaced:
            wrong.append(f"unused   {key} {list(tensor.shape)}: this model has no {', '.join(unplaced)}")
            continue
        problem = _place(key, tensor, rule, paths, shapes, flat, origin)
        if problem:
            wrong.append(problem)
    attempted = {path for key in found for path in found[key][1]}
    for path, shape in shapes.items():
        if path not in attempted:
            wrong.append(f"missing  {path} {list(shape)}: no key of the checkpoint gives it")
    if wrong:
        raise ConversionError(f"{len(wrong)} keys do not fit:\n  " + "\n  ".join(sorted(wrong)))
    flat = match_layout(flat, target)
    return unflatten({path: np.asarray(flat[path], leaf.dtype) for path, leaf in target.items()})


def ignored(key, ignore):
    """The reason for which a key is left out, or None."""
    return next((why for pattern, why in ignore if re.fullmatch(pattern, key)), None)


def _unknown(key, tensor, rules):
    near = difflib.get_close_matches(re.sub(r"\d+", "{i}", key), [r.key for r in rules], 1, 0.8)
    return f"unused   {key} {list(tensor.shape)}: no rule knows it" + (f" (nearest: {near[0]})" if near else "")


def _place(key, tensor, rule, paths, shapes, flat, origin):
    """Puts the arrays of one key into `flat`; the problem in words, if there is one."""
    if tensor.dtype.kind in "SUO":
        return f"no numbers {key} {list(tensor.shape)}: holds {tensor.dtype}"
    if tensor.dtype.kind not in "biu" and not np.all(np.isfinite(tensor)):
        return f"not finite {key} {list(tensor.shape)}: holds NaN or infinity"
    try:
        arrays = rule.transform.to_jax(np.asarray(tensor))
    except ValueError:
        return f"misshapen {key}: found {list(tensor.shape)}, which cannot become {', '.join(paths)}"
    for path, array in zip(paths, arrays, strict=True):
        if path in origin:
            return f"duplicate {key}: {path} is also given by {origin[path]}"
        if array.shape != shapes[path]:
            expected = list(rule.transform.to_torch([np.broadcast_to(np.float32(0), shapes[p]) for p in paths]).shape)
            return f"misshapen {key}: found {list(tensor.shape)}, expected {expected}"
        flat[path], origin[path] = array, key
    return None


def to_tensors(params: Params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The state dict under original names and layouts: the inverse of `to_params`.

    Raises:
        ConversionError: for parameters that no rule names.
    """
    flat = flatten(params)
    shapes = unrolled_paths(flat)
    flat = match_layout({k: np.asarray(v) for k, v in flat.items()}, shapes)
    tensors, used = {}, set()
    for rule in rules:
        first = _regex(rule.paths[0])
        for path in [p for p in flat if first.fullmatch(p)]:
            names = first.fullmatch(path).groupdict()
            paths = [p.format(**names) for p in rule.paths]
            key = rule.key.format(**names)
            if key not in tensors and not used.intersection(paths) and all(p in flat for p in paths):
                tensors[key] = np.asarray(rule.transform.to_torch([flat[p] for p in paths]), order="C")
                used.update(paths)
    unnamed = sorted(set(flat) - used)
    if unnamed:
        lines = "\n  ".join(unnamed)
        raise ConversionError(f"{len(unnamed)} parameters have no name in this format:\n  {lines}")
    return tensors
