"""Label maps of Pascal Context, 459 and 59 classes, from the release's `trainval/*.mat`."""

import numpy as np

from input_pipeline.preparation.run import files, folder
from jaxseg.text import class_lists


def make_459(root, splits, run):
    """`pascal_context_full/labels_459/*.tif`: the released numbers less one (0..458), 65535 where there is none."""
    _make(root, "labels_459", ".tif", lambda stored: np.where(stored > 0, stored - 1, 65_535).astype(np.uint16), run)


def make_59(root, splits, run):
    """`pascal_context_full/labels_59/*.png`: the 59 classes by ascending number among the 459, 255 for all others.

    That order is alphabetical but for diningtable, which stands at 49, since it is called table among the 459.
    """
    class_of = np.full(460, 255, np.uint8)
    for position, entry in enumerate(class_lists.class_list("pascal_context_59")):
        class_of[entry.id] = position
    _make(root, "labels_59", ".png", lambda stored: class_of[stored], run)


def _make(root, name, ending, numbers_of, run):
    base = folder(root, "pascal_context_full")
    sources = files(folder(base, "trainval"), "*.mat")
    target = base / name
    source_of = {target / f"{source.stem}{ending}": source for source in sources}

    def make(file):
        run.write_map(file, numbers_of(_stored(source_of[file])))

    run.each(name, run.missing(source_of), make)
    run.say(f"{target}: {len(sources)} maps")
    for needed in ("images", "val.txt"):
        if not (base / needed).exists():
            run.say(f"{base}: {needed} is not there yet; photographs are those of VOC 2010, val.txt has an id a line")


def _stored(path):
    """int32 [H, W] of 1..459."""
    from scipy.io import loadmat

    try:
        stored = loadmat(path)["LabelMap"]
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise ValueError(f"{path}: cannot be read as a .mat file with LabelMap: {error}") from None
    if stored.ndim != 2 or not stored.size or stored.min() < 0 or stored.max() > 459:
        raise ValueError(f"{path}: LabelMap is {stored.shape}, {stored.min()} to {stored.max()}; expected [H, W] of 0 to 459")
    return stored.astype(np.int32)
