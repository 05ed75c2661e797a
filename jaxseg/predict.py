"""`--mode=predict`: masks of photographs by names, as pictures and JSON."""

import glob
import itertools
import logging
import os
import time
from collections import Counter
from pathlib import Path

import jax

from jaxseg import filenames
from jaxseg.api import load_segmenter
from jaxseg.background import Writer, read_ahead
from jaxseg.metrics.coco_files import PanopticWriter
from jaxseg.progress import Rate, duration

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_PROGRESS_SECONDS = 5


def run(config, workdir, images, weights="", text="", text_file=""):
    """Segments photographs; writes `predictions/` in `workdir`, in the layout of `Result.save`.

    Args:
        images: files, folders, or globs (`**` goes through folders).
        weights: a folder; by default the newest checkpoint in `workdir`.
        text: names separated by `;`.
        text_file: a file with a name per line.

    Returns:
        {"images": number of those segmented, "skipped": paths of those that could not be read, "folder": ...}.

    Raises:
        ValueError: one line: no names, no image, a glob that matches nothing, a name that is too long, no image that can be
            read, or a disk that cannot be written to.
    """
    paths, names = find_images(images), read_names(text, text_file)
    folder = Path(workdir) / "predictions"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--workdir: cannot write to {folder}: {error.strerror}") from None
    segmenter = load_segmenter(config, weights or workdir)
    return segment_files(segmenter, paths, names, folder)


def find_images(patterns):
    """The files that are meant, each once, in the order of the patterns."""
    found = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        else:
            files = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())
        if not files:
            raise ValueError(f"--images: found no image at {str(pattern)!r}")
        found |= dict.fromkeys(files)
    if not found:
        raise ValueError("--images: found nothing, expected files or globs, such as --images='photos/*.jpg'")
    return list(found)


def read_names(text="", text_file=""):
    """The names of `text` (separated by `;`) and `text_file` (one per line), each once."""
    lines = text.split(";")
    if text_file:
        try:
            lines += Path(text_file).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"--text_file: {text_file} is not a text file in UTF-8") from None
        except OSError as error:
            raise ValueError(f"--text_file: cannot read {text_file}: {error.strerror}") from None
    counts = Counter(filter(None, map(str.strip, lines)))
    if not counts:
        raise ValueError("--text: found no names, expected --text='a cat; a remote control', or --text_file")
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        logging.warning("%d names occur more than once and are used once: %s", len(twice), "; ".join(twice[:5]))
    return list(counts)


def segment_files(segmenter, paths, names, folder):
    """Segments files and saves the results; arguments and result as of `run`. Several processes share the files."""
    segmenter.prepare(names)
    mine = slice(jax.process_index(), None, jax.process_count())
    todo = list(zip(paths, filenames.stems(paths), strict=True))[mine]
    batch_size, threads = segmenter.config.predict.batch_size, min(4, os.cpu_count() or 1)
    progress, skipped, first_error = _Progress(len(todo)), [], None

    def read(item):
        return segmenter.read(item[0])

    def good():
        nonlocal first_error
        for (path, stem), value in read_ahead(read, todo, threads=threads, ahead=batch_size + threads):
            if isinstance(value, Exception):
                first_error = first_error or value
                skipped.append(str(path))
                progress.skip(_line(path, value))
            else:
                yield stem, value

    # Where names compete, results are segments that do not overlap: COCO's panoptic files come beside the others.
    panoptic = _panoptic_writer(folder, names) if segmenter.task.names_compete else None
    with Writer(threads, behind=batch_size + threads) as writer:
        for stems, photographs in _batched(good(), batch_size):
            results = segmenter.segment_encoded(segmenter.encode(photographs, batch_size), names)
            for stem, result in zip(stems, results, strict=True):
                writer.submit(_save, result, folder, stem, panoptic, names)
            progress.add(len(results))
    if panoptic:
        panoptic.end()
    if todo and len(skipped) == len(todo):
        raise ValueError(f"none of {len(todo)} images could be read; the first: {first_error}")
    progress.end(folder)
    return {"images": len(todo) - len(skipped), "skipped": skipped, "folder": str(folder)}


def _batched(pairs, size):
    pairs = iter(pairs)
    while batch := list(itertools.islice(pairs, size)):
        yield zip(*batch, strict=True)


def _panoptic_writer(folder, names):
    several = f"_{jax.process_index()}" if jax.process_count() > 1 else ""
    categories = [{"id": i + 1, "name": name, "isthing": 1} for i, name in enumerate(names)]
    return PanopticWriter(folder / f"panoptic{several}.json", folder / "panoptic", categories)


def _save(result, folder, stem, panoptic, names):
    try:
        result.save(folder, stem)
        if panoptic:
            panoptic.add(stem, stem, *result.to_panoptic({name: i + 1 for i, name in enumerate(names)}))
    except OSError as error:
        raise ValueError(f"{folder}: cannot write {stem}: {error.strerror or error}") from None


def _line(path, error):
    message = " ".join(str(error).split())
    return message if message.startswith(str(path)) else f"{path}: {message}"


class _Progress:
    """Says every few seconds how far the work is, how fast, and how long it will take."""

    def __init__(self, total):
        self._total, self._done, self._skipped = total, 0, 0
        self._rate, self._started, self._said = Rate(), time.monotonic(), time.monotonic()

    def skip(self, line):
        self._skipped += 1
        logging.warning("skipped %s", line)

    def add(self, images):
        self._done += images
        self._rate.add(images)
        if time.monotonic() - self._said >= _PROGRESS_SECONDS:
            self._said, rate = time.monotonic(), self._rate.read()
            left = (self._total - self._done - self._skipped) / max(rate, 1e-9)
            logging.info("%s, %.2f images/s, %s left", self._counts(), rate, duration(left))

    def end(self, folder):
        seconds = time.monotonic() - self._started
        rate = self._done / max(seconds, 1e-9)
        logging.info("%s in %s (%.2f images/s): %s", self._counts(), duration(seconds), rate, folder)

    def _counts(self):
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        return f"{self._done}/{self._total} images{skipped}"
