"""A contact sheet of scenes: `python -m input_pipeline.datasets.scenes --out=scenes.png`.

Each scene is shown as the picture, its segments and its parts.
"""

import argparse

import cv2
import numpy as np

from input_pipeline.datasets.scenes.composition import SPLITS, draw_scene
from input_pipeline.datasets.scenes.vocabulary import vocabulary


def segment_picture(scene) -> np.ndarray:
    """Segments in their classes' colours over a paled picture, outlined in white: uint8 [S, S, 3]."""
    colors = np.zeros((1 + max(s.id for s in scene.segments), 3))
    for segment in scene.segments:
        colors[segment.id] = vocabulary().colors[segment.class_id]
    return _overlay(scene.image, colors[scene.segment_map], scene.segment_map)


def part_picture(scene) -> np.ndarray:
    """Parts and sub-parts in colours of their own over a greyed picture: uint8 [S, S, 3]."""
    hues = (np.arange(1 + max((p.id for p in scene.parts), default=0)) * 67 % 180).astype(np.uint8)
    colors = cv2.cvtColor(np.stack([hues, np.full_like(hues, 190), np.full_like(hues, 240)], 1)[None], cv2.COLOR_HSV2RGB)[0]
    grey = np.repeat(scene.image.mean(axis=2, keepdims=True) * 0.5 + 120, 3, axis=2)
    layer = np.where(scene.part_map[:, :, None] > 0, colors[scene.part_map], grey)
    return _overlay(grey, layer, scene.part_map)


def _overlay(image, layer, ids) -> np.ndarray:
    picture = image * 0.35 + layer * 0.65
    ids = ids.astype(np.uint16)
    picture[cv2.erode(ids, np.ones((2, 2), np.uint8)) != ids] = 255
    return picture.astype(np.uint8)


def contact_sheet(split: str, first: int, num: int, size: int, columns: int) -> np.ndarray:
    """`num` scenes of a split, three pictures each: uint8 [H, W, 3]."""
    cells = []
    for index in range(first, first + num):
        scene = draw_scene(split, index, size)
        row = np.concatenate([scene.image, segment_picture(scene), part_picture(scene)], axis=1)
        cells.append(np.pad(row, ((4, 4), (4, 4), (0, 0)), constant_values=255))
    cells += [np.full_like(cells[0], 255)] * (-num % columns)
    return np.concatenate([np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)], axis=0)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m input_pipeline.datasets.scenes", description=__doc__)
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--split", default="train", choices=tuple(SPLITS))
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--num", type=int, default=12, help="number of scenes")
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--columns", type=int, default=2)
    args = parser.parse_args(argv)
    sheet = contact_sheet(args.split, args.first, args.num, args.size, args.columns)
    if not cv2.imwrite(args.out, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise ValueError(f"--out: cannot write {args.out}")
    print(f"{args.out}: {args.num} scenes of {args.split}")


if __name__ == "__main__":
    main()
