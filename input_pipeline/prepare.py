"""Makes the files that published layouts derive from the releases.

    python -m input_pipeline.prepare ade20k_panoptic --root=/datasets [--splits=train,val] [--check] [--workers=8]

What is there is left as it is, so a call that was stopped goes on where it was; `--check` compares it instead. Exit code 1 with
one line where something is missing or wrong.
"""

import argparse
import sys
from pathlib import Path

from input_pipeline.preparation import ade20k, coco, pascal_context
from input_pipeline.preparation.run import Run

COMMANDS = {
    "coco_splits": coco.make_splits,
    "coco_semantic": coco.make_semantic,
    "ade20k_semantic": ade20k.make_semantic,
    "ade20k_panoptic": ade20k.make_panoptic,
    "ade20k_instance": ade20k.make_instance,
    "ade20k_847": ade20k.make_full,
    "pascal_context_459": pascal_context.make_459,
    "pascal_context_59": pascal_context.make_59,
}
SPLITS = ("train", "val")


def main(arguments=None):
    what = "\n".join(f"  {name:20}{function.__doc__.strip().splitlines()[0]}" for name, function in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare",
        description=f"{__doc__.splitlines()[0]}\n\n{what}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=COMMANDS, metavar="WHAT")
    parser.add_argument("--root", required=True, type=Path, help="folder that holds coco/, ADEChallengeData2016/, ...")
    parser.add_argument("--splits", default="train,val", help="train, val or both (Pascal Context has no such parts)")
    parser.add_argument("--check", action="store_true", help="compare files that are there with what is derived")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: one per core")
    options = parser.parse_args(arguments)
    splits = options.splits.split(",")
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        parser.error(f"--splits: found {unknown[0]!r}, expected {' or '.join(SPLITS)}")
    try:
        COMMANDS[options.what](options.root, splits, Run(options.check, options.workers))
    except (ValueError, OSError) as error:
        print(f"{options.what}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
