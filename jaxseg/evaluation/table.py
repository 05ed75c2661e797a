"""Results as a table to read: a row per metric, a column per split, baselines in brackets."""

_COUNTS = ("present_pairs", "absent_pairs")
UNTRAINED = "untrained"


def report(results):
    """Text lines of `{"<split>/<measure>[/<part>]": value}`.

    `untrained/<split>` is a split of its own; `<measure>_baseline` stands in brackets behind `<measure>`; metrics of single
    classes are left out.
    """
    table, splits = {}, []
    for key, value in results.items():
        split, measure, part = _parse(key)
        if split not in splits:
            splits.append(split)
        if not _is_of_one_class(measure) and not measure.endswith("_baseline"):
            other = results.get(f"{split}/{measure}_baseline{part}")
            text = f"{value:.0f}" if measure.partition("@")[0] in _COUNTS else f"{value:.3f}"
            table.setdefault(measure + part, {})[split] = text + (f" ({other:.3f})" if other is not None else "")
    if not table:
        return "no results"
    splits.sort(key=lambda split: split.startswith(UNTRAINED))
    rows = [["", *splits], *([name, *(cells.get(split, "-") for split in splits)] for name, cells in sorted(table.items()))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "(in brackets: what a trivial answer reaches)"])


def _parse(key):
    """`"untrained/val/miou/seen"` -> ("untrained/val", "miou", "/seen")."""
    split, _, rest = key.partition("/")
    if split == UNTRAINED:
        name, _, rest = rest.partition("/")
        split = f"{split}/{name}"
    measure, slash, part = rest.partition("/")
    return split, measure, slash + part


def _is_of_one_class(measure):
    """One row per class would hide the rest; results.json has them."""
    return measure in ("iou", "acc") or measure.startswith("class_")
