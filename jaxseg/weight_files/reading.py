"""Released weights wherever they lie: a file, a Hugging Face folder, or a repository of the Hugging Face hub at a revision."""

import dataclasses
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.weight_files import safetensors_file, torch_reader
from jaxseg.weight_files.state_dict import state_dict

_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_HUB = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>.+))?")
_SINGLE = ("model.safetensors", "pytorch_model.bin")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One source of weights.

    Attributes:
        source: as the user named it.
        kind: "torch zip", "torchscript", "torch legacy", "pickle" or "safetensors".
        files: all files that were read.
        tensors: {key: array}, read-only views of the files.
        settings: of the config.json beside the weights.
        inside, choices, left_out, prefix: of `jaxseg.weight_files.state_dict.StateDict`.
    """

    source: str
    kind: str
    files: tuple[Path, ...]
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    inside: str = ""
    choices: tuple[str, ...] = ()
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: str = ""

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def read_weights(source) -> WeightFile:
    """Weights of a source.

    Args:
        source: a file; `file#name` where it holds several state dicts; a Hugging Face folder; or `org/name@revision` of the
            hub, which is the only thing that is fetched, and only at a commit.

    Raises:
        ValueError: one line with the source: unreadable, not weights, or a hub id without a commit.
        FileNotFoundError: nothing there.
    """
    source = str(source)
    text, _, choice = source.partition("#") if not Path(source).exists() else (source, "", "")
    path = Path(text).expanduser()
    if path.is_dir():
        return _read_folder(source, path)
    if path.is_file():
        return _read_file(source, path, choice)
    match = _HUB.fullmatch(text)
    if match and not path.suffix.startswith(_TORCH + (".safetensors",)) and not path.parent.is_dir():
        return _read_folder(source, _fetch(match["id"], match["revision"]))
    raise FileNotFoundError(f"{source}: no such file or folder")


def _read_file(source, path, choice=""):
    if path.suffix == ".safetensors":
        if choice:
            raise ValueError(f"{source}: a safetensors file holds one state dict, expected no '#{choice}'")
        return WeightFile(source, "safetensors", (path,), safetensors_file.read(path))
    file = torch_reader.read(path)
    try:
        found = state_dict(file, choice)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not found.tensors:
        raise ValueError(f"{path}: no tensors in it")
    return WeightFile(source, file.kind, (path,), **vars(found))


def _read_folder(source, folder):
    settings = {}
    config = folder / "config.json"
    if config.is_file():
        try:
            settings = json.loads(config.read_text())
        except ValueError as error:
            raise ValueError(f"{config}: not JSON: {error}") from None
    files = (config,) if config.is_file() else ()
    for name in _SINGLE:
        if (folder / name).is_file():
            file = _read_file(source, folder / name)
            return dataclasses.replace(file, files=(folder / name, *files), settings=settings)
        if (folder / f"{name}.index.json").is_file():
            file = _read_shards(source, folder, folder / f"{name}.index.json")
            return dataclasses.replace(file, files=(*file.files, *files), settings=settings)
    raise ValueError(f"{folder}: no weights here; looked for {', '.join(_SINGLE)} and their .index.json")


def _read_shards(source, folder, index):
    try:
        table = json.loads(index.read_text())["weight_map"]
        names = sorted(set(table.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: found no weight_map, expected {{key: file}}") from None
    tensors, files, kind = {}, [], ""
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: found file {name!r}, expected files of this folder")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file, {index.name} names it")
        shard = _read_file(source, folder / name)
        twice = sorted(set(tensors) & set(shard.tensors))
        if twice:
            raise ValueError(f"{folder / name}: {twice[0]} is in another shard too")
        tensors |= shard.tensors
        files, kind = [*files, folder / name], shard.kind
    missing = sorted(set(table) - set(tensors))
    if missing:
        raise ValueError(f"{index}: {len(missing)} keys are in none of its files: {', '.join(missing[:5])}")
    return WeightFile(source, kind, (*files, index), tensors)


def _fetch(repository, revision):
    """The folder of a repository of the hub at a commit, fetched or from the cache."""
    if not revision:
        raise ValueError(f"{repository}: no such folder; of the Hugging Face hub a commit is needed: {repository}@<commit>")
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        raise ValueError(f"{repository}@{revision}: found {revision!r}, expected a commit (7 to 40 hexadecimal digits)")
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(f"{repository}@{revision}: fetching needs a package: pip install huggingface_hub") from None
    try:
        names = huggingface_hub.list_repo_files(repository, revision=revision)
        weights = next((n for n in (f"{s}{end}" for s in _SINGLE for end in ("", ".index.json")) if n in names), None)
        if weights is None:
            raise ValueError(f"no weights there; looked for {', '.join(_SINGLE)} and their .index.json")
        wanted = ["config.json", weights]
        if weights.endswith(".index.json"):
            wanted.append("*" + Path(weights.removesuffix(".index.json")).suffix)
        logging.info("fetching %s of %s@%s", ", ".join(wanted), repository, revision)
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # whatever the network and the hub raise
        logging.debug("", exc_info=True)
        raise ValueError(f"{repository}@{revision}: {' '.join(str(error).split())[:200]}") from None


def sha256(path) -> str:
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
