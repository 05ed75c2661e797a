"""What converted weights were made of: a JSON file beside them.

    files        path, SHA-256, bytes and kind of every file, and which of its dicts was taken
    model        the fields of `config.model` that the files decide
    used         {key: shape, dtype, parameters that it gives}
    ignored      {key: why it has no use}
    parameters   {parameter: [shape, dtype, checksum]}, as in the checkpoint
    check        the errors of the replayed activations
    versions, config, notes
"""

import importlib.metadata
import json
import platform

from jaxseg.weight_files.reading import sha256

_PACKAGES = ("jax", "flax", "orbax-checkpoint", "numpy", "safetensors")


def describe_files(sources):
    """A list of plain data from `WeightFile`s, an entry per file."""
    entries = []
    for source in sources:
        about = {"source": source.source, "kind": source.kind, "inside": source.inside, "other_dicts": list(source.choices)}
        about |= {"prefix_removed": source.prefix, "left_out": source.left_out}
        entries += [{"file": str(f), "sha256": sha256(f), "bytes": f.stat().st_size, **about} for f in source.files]
    return entries


def versions():
    """Of this library, Python and the packages that matter."""
    import jaxseg

    found = {"jaxseg": jaxseg.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def write(path, certificate):
    """Writes a certificate whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(certificate, indent=1, default=_plain) + "\n")
    part.replace(path)


def _plain(value):
    return value.item() if hasattr(value, "item") else list(value)
