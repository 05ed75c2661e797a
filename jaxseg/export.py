"""`--mode=export`: prediction as StableHLO, to run without this library's models.

A folder holds
    predict.stablehlo      the program (`jax.export`), for CPU, CUDA and TPU, of any batch size and any number of names
    weights.safetensors    its parameters. They are inputs, not constants: the program stays small, one file of weights
                           serves every platform, and weights trained further replace it without a new export
    vocabulary.safetensors the embeddings of the names that were given, if any
    export.json            what goes in and comes out, how images are preprocessed, and what the names are
"""

import json
import logging
from pathlib import Path

import jax
import numpy as np
import safetensors.flax
from jax import export as stablehlo

from jaxseg.api import load_segmenter
from jaxseg.predict import read_names
from jaxseg.weights import flatten, unflatten

PLATFORMS = ("cpu", "cuda", "tpu")


def run(config, workdir, weights="", text="", text_file=""):
    """Writes `export/` in `workdir`.

    Args:
        weights: a folder; by default the newest checkpoint in `workdir`.
        text, text_file: names to embed, as of `predict.run`; without any the caller brings embeddings of its own.

    Returns:
        The folder.
    """
    names = read_names(text, text_file) if text or text_file else []
    segmenter = load_segmenter(config, weights or workdir)
    return save(Path(workdir) / "export", segmenter.task, segmenter.params, segmenter.state, segmenter.config, names)


def save(folder, task, params, state, config, names=()):
    """Writes the artefact of a task's `predict`.

    Raises:
        ValueError: the system cannot predict from a vocabulary.
    """
    if task.predict is None or task.example_predict is None:
        raise ValueError(f"system {task.name!r} has no prediction to export")
    batch_size, num_names = stablehlo.symbolic_shape("batch, names")
    ctx, batch = task.example_predict(batch_size, num_names)
    weights = {"params": params, "state": state}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)

    def predict(weights, ctx, batch):
        return task.predict(weights["params"], weights["state"], ctx, batch)

    exported = stablehlo.export(jax.jit(predict), platforms=PLATFORMS)(shapes, ctx, batch)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predict.stablehlo").write_bytes(exported.serialize())
    _write_arrays(folder / "weights.safetensors", weights)
    if names:
        _write_arrays(folder / "vocabulary.safetensors", task.prepare(params, tuple(names)))
    description = {
        "system": task.name,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "preprocess": config.predict.preprocess,
        "threshold": config.predict.threshold,
        "inputs": {"ctx": _describe(ctx), "batch": _describe(batch)},
        "outputs": _describe(jax.tree.unflatten(exported.out_tree, exported.out_avals)),
        "names": list(names),
    }
    (folder / "export.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    logging.info("exported %s for %s: %s", task.name, ", ".join(PLATFORMS), folder)
    return folder


class Exported:
    """A loaded artefact: `outputs = exported(ctx, batch)`.

    Attributes:
        description: the content of export.json.
        vocabulary: the embeddings of `description["names"]`, the `ctx` of a call; None where no names were exported.
    """

    def __init__(self, program, weights, description, vocabulary):
        self.description, self.vocabulary = description, vocabulary
        self._weights = jax.device_put(weights)
        self._call = jax.jit(program.call)

    def __call__(self, ctx, batch):
        """Outputs of `predict` for embeddings `ctx` and a batch of preprocessed images, described in `description`.

        Raises:
            ValueError: an input is missing or of another shape or type.
        """
        for group, given in (("ctx", ctx), ("batch", batch)):
            _check(group, given, self.description["inputs"][group])
        return self._call(self._weights, ctx, batch)


def load(folder):
    """The `Exported` program of a folder.

    Raises:
        ValueError: a file is missing or damaged.
    """
    folder = Path(folder)
    description = _read(folder / "export.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    program = _read(folder / "predict.stablehlo", lambda path: stablehlo.deserialize(bytearray(path.read_bytes())))
    weights = _read(folder / "weights.safetensors", _arrays)
    vocabulary = _read(folder / "vocabulary.safetensors", _arrays) if description["names"] else None
    return Exported(program, {"state": {}, **weights}, description, vocabulary)


def _read(file, parse):
    if not file.is_file():
        raise ValueError(f"{file.parent}: not an exported model: no {file.name}")
    try:
        return parse(file)
    except Exception as error:  # each reader has errors of its own
        raise ValueError(f"{file.parent}: {file.name} is damaged: {type(error).__name__}") from None


def _arrays(file):
    return unflatten(safetensors.flax.load_file(file))


def _describe(tree):
    """{path: {"shape", "dtype"}}; sizes that are not fixed are words."""

    def shape(x):
        return [size if isinstance(size, int) else str(size) for size in x.shape]

    return {path: {"shape": shape(x), "dtype": str(x.dtype)} for path, x in flatten(tree).items()}


def _check(group, given, expected):
    given = flatten(given)
    for path, spec in expected.items():
        wanted = f"expected {spec['dtype']} [{', '.join(map(str, spec['shape']))}]"
        if path not in given:
            raise ValueError(f"{group}/{path}: found nothing, {wanted}")
        shape, dtype = np.shape(given[path]), given[path].dtype
        sizes = [m if isinstance(m, int) else n for n, m in zip(shape, spec["shape"], strict=False)]
        if len(shape) != len(spec["shape"]) or list(shape) != sizes or str(dtype) != spec["dtype"]:
            raise ValueError(f"{group}/{path}: found {dtype} {list(shape)}, {wanted}")


def _write_arrays(file, tree):
    # Not save_file, whose files only their owner may read.
    file.write_bytes(safetensors.flax.save({path: np.asarray(x) for path, x in flatten(tree).items()}))
