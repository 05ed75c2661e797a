"""`--mode=convert`: released weights into a checkpoint of this library, and back under their original names.

    python main.py --config=configs/clipseg_rd64.py --mode=convert --torch=rd64-uni.pth,ViT-B-16.pt --workdir=weights/rd64

Every key of the files is used once or left out for a known reason, every parameter is filled, and the sizes that the files
imply are those of the config; whatever does not fit is one message, and then nothing is written. `certificate.json` beside
the weights says what they were made of (jaxseg/certificate.py).
"""

import json
from pathlib import Path

import jax
import numpy as np

from jaxseg import systems
from jaxseg.checkpoint import load_weights, save_weights, weights_meta
from jaxseg.config import to_json
from jaxseg.conversion.certificate import describe_files, versions, write
from jaxseg.conversion.model_match import check_model, merged
from jaxseg.conversion.replay import replay
from jaxseg.weight_files import safetensors_file
from jaxseg.weight_files.reading import read_weights
from jaxseg.weights import ConversionError, assign, flatten, ignored, to_params, to_tensors

WEIGHTS, CERTIFICATE = "weights", "certificate.json"
ORIGINAL, ORIGINAL_CERTIFICATE = "model.safetensors", "model.certificate.json"


def run(config, files, workdir, reverse=False, weights="", check="", format=""):
    """Converts weights into `workdir`.

    Args:
        config: the model that the weights are of.
        files: what `jaxseg.weight_files.read_weights` takes: files, a Hugging Face folder, or a hub id with its commit.
        workdir: a folder; gets `weights/` and `certificate.json`, or `model.safetensors` and its certificate.
        reverse: from a checkpoint to the original names.
        weights: reverse: the folder of the checkpoint; by default `workdir`.
        check: recorded inputs and outputs (.npz) that the converted weights must reproduce.
        format: the original layout; by default the one that the files have, or had.

    Raises:
        ValueError: everything that does not fit, before anything is written.
    """
    workdir = Path(workdir).expanduser()
    if reverse:
        if files or check:
            raise ValueError("--reverse: found --torch or --check as well, expected --weights and --format only")
        return to_original(config, weights or workdir, workdir, format)
    if weights:
        raise ValueError("--weights: found together with --mode=convert, expected --torch (or --reverse)")
    return from_original(config, files, workdir, check, format)


def from_original(config, sources, workdir, check="", format=""):
    """Original files -> `weights/` and `certificate.json`; returns the certificate."""
    if not sources:
        raise ValueError("--torch: found no file, expected released weights of this model")
    if (workdir / WEIGHTS).exists():
        raise ValueError(f"{workdir / WEIGHTS}: weights are already here, expected another folder or that this one is removed")
    recorded = _read_check(check) if check else None
    files = []
    for source in sources:
        files.append(read_weights(source))
        _say_file(files[-1])
    layout, tensors = find_layout(systems.formats(config.system), files, format)
    where = f"{', '.join(map(str, sources))} ({layout.name})"
    rules = layout.rules(config.model.to_dict())
    try:
        decided, notes = _matched(config, layout, files, tensors)
        _say_layout(layout, tensors, notes)
        task = systems.make_task(config)
        target, state = jax.eval_shape(task.init, jax.random.key(0))
        params = to_params(tensors, rules, _part(target, layout.part), layout.ignore)
    except ConversionError as error:
        raise ConversionError(f"{where}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    certificate = _certificate(config, layout, files, tensors, rules, decided, notes)
    if check:
        certificate["check"] = replay(config, params, state, *recorded, check)
        _say_check(certificate["check"])
    if jax.tree.leaves(state):
        state = jax.jit(lambda rng: task.init(rng)[1])(jax.random.key(config.seed))
    print(f"writing {workdir / WEIGHTS} ...", flush=True)
    dtypes = {key: x.dtype.name for key, x in tensors.items() if key in certificate["used"] and x.dtype != np.float32}
    origin = {"format": layout.name, "dtypes": dtypes, "files": [file["sha256"] for file in certificate["files"]]}
    save_weights(workdir, params, state, {"config": json.loads(to_json(config)), "conversion": origin})
    certificate["parameters"] = weights_meta(workdir)["arrays"]["params"]
    write(workdir / CERTIFICATE, certificate)
    if layout.part:
        print(f"note: these are the parameters below {layout.part}/ alone, for config.init_from", flush=True)
    count = sum(np.size(x) for x in flatten(params).values())
    print(f"done: {count:,} parameters in {workdir}, described by {workdir / CERTIFICATE}", flush=True)
    return certificate


def _part(params, name):
    return {name: params[name]} if name else params


def _matched(config, layout, files, tensors):
    """(fields that the files decide, notes about the config).

    Raises:
        ValueError: the config describes another model.
    """
    try:
        decided = layout.infer({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    except (LookupError, TypeError):  # a key that decides sizes is missing or misshapen: every such key is reported later
        return {}, []
    for file in files:
        if layout.settings and file.settings:
            decided = merged(decided, layout.settings(file.settings))
    return decided, check_model(config, decided, layout.free)


def find_layout(layouts, files, name=""):
    """(`Format`, state dict) of files: the layout of that name, or the one whose keys they have.

    Raises:
        ValueError: none fits, or there is none of that name.
    """
    names = ", ".join(layout.name for layout in layouts)
    if name and name not in [layout.name for layout in layouts]:
        raise ValueError(f"--format: found {name!r}, expected one of {names}")
    for layout in layouts:
        tensors = _joined(layout, files)
        if tensors is not None and layout.name in (name, name or layout.name) and layout.detect(set(tensors)):
            return layout, tensors
    keys = sorted({key for file in files for key in file.tensors})
    shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
    raise ValueError(f"{', '.join(f.source for f in files)}: {len(keys)} keys ({shown}), expected the layout {name or names}")


def _joined(layout, files):
    """One state dict from all files, None where they share keys."""
    if layout.merge:
        return layout.merge([file.tensors for file in files])
    tensors = {}
    for file in files:
        if tensors.keys() & file.tensors.keys():
            return None
        tensors |= file.tensors
    return tensors


def _certificate(config, layout, files, tensors, rules, decided, notes):
    found = assign([key for key in tensors if not ignored(key, layout.ignore)], rules)
    return {
        "system": config.system,
        "format": layout.name,
        "files": describe_files(files),
        "model": decided,
        "notes": notes,
        "used": {
            key: {"shape": list(tensors[key].shape), "dtype": tensors[key].dtype.name, "parameters": list(paths)}
            for key, (_, paths) in found.items()
        },
        "ignored": {key: why for key in tensors if (why := ignored(key, layout.ignore))},
        "versions": versions(),
        "config": json.loads(to_json(config)),
    }


def to_original(config, weights, workdir, format=""):
    """A checkpoint -> `model.safetensors` under original names and its certificate, which is returned."""
    target = workdir / ORIGINAL
    if target.exists():
        raise ValueError(f"{target}: is already here, expected another folder or that it is removed")
    layouts = {layout.name: layout for layout in systems.formats(config.system)}
    task = systems.make_task(config)
    template, state = jax.eval_shape(task.init, jax.random.key(0))
    origin = weights_meta(weights).get("conversion") or {}
    stored = layouts[origin["format"]].part if origin.get("format") in layouts else ""
    params, _, meta = load_weights(weights, (_part(template, stored), state))
    name = format or origin.get("format", "")
    if name not in layouts:
        why = f"found {format!r}" if format else f"the weights in {weights} were not converted from a file"
        raise ValueError(f"--format: {why}, expected one of {', '.join(layouts)}")
    if "released" in task.capabilities:
        params = task.capabilities["released"](params)
    tensors = to_tensors(_part(params, layouts[name].part), layouts[name].rules(config.model.to_dict()))
    dtypes = origin.get("dtypes", {}) if name == origin.get("format") else {}
    tensors = {key: _as_before(tensor, dtypes.get(key)) for key, tensor in tensors.items()}
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"writing {target}: {len(tensors)} keys in the layout {name} ...", flush=True)
    safetensors_file.write(target, tensors)
    certificate = {
        "system": config.system,
        "format": name,
        "weights": str(weights),
        "step": meta.get("step", 0),
        "keys": {key: {"shape": list(x.shape), "dtype": x.dtype.name} for key, x in tensors.items()},
        "files": describe_files([read_weights(target)]),
        "versions": versions(),
        "config": json.loads(to_json(config)),
    }
    write(workdir / ORIGINAL_CERTIFICATE, certificate)
    print(f"done: {target}, described by {workdir / ORIGINAL_CERTIFICATE}", flush=True)
    return certificate


def _as_before(tensor, dtype):
    """In the dtype that the original had, where no bit is lost by it (training may have changed the values)."""
    if not dtype:
        return tensor
    from jaxseg.weight_files.pickled_tensors import dtype_of

    with np.errstate(over="ignore"):
        cast = tensor.astype(dtype_of(dtype))
    return cast if np.array_equal(cast.astype(tensor.dtype), tensor) else tensor


def _read_check(path):
    """({name: input}, {name: output}) of a recorded file."""
    try:
        with np.load(path, allow_pickle=False) as data:
            names = data.files
            groups = [{k.removeprefix(p): data[k] for k in names if k.startswith(p)} for p in ("input/", "output/")]
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy raises many kinds
        raise ValueError(f"--check: {path}: no .npz file, or damaged: {' '.join(str(error).split())[:200]}") from None
    if not all(groups):
        raise ValueError(f"--check: {path}: found {', '.join(names[:5])}, expected arrays named input/... and output/...")
    return groups


def _say_file(file):
    what = f", its {file.inside!r}" if file.inside else ""
    print(f"{file.source}: {file.kind}{what}, {len(file.tensors)} tensors, {file.num_bytes / 1e6:.1f} MB", flush=True)
    if file.choices:
        print(f"note: {file.source} also holds {', '.join(map(repr, file.choices))}; FILE#NAME takes another", flush=True)


def _say_layout(layout, tensors, notes):
    num_ignored = sum(ignored(key, layout.ignore) is not None for key in tensors)
    unused = f", {num_ignored} known and without use" if num_ignored else ""
    print(f"layout {layout.name}: {len(tensors)} keys{unused}", flush=True)
    for note in notes:
        print(f"note: {note}", flush=True)


def _say_check(result):
    for name, errors in result["outputs"].items():
        print(f"check {name}: max error {errors['max_abs_error']:.2g} of {errors['max_abs']:.3g}", flush=True)
