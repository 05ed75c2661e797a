"""CLIPSeg, decoder width 64, refined head (a 3x3 convolution and two transposed ones): `rd64-uni-refined`.

50,000 steps; not in the paper's tables. Status: released. Options and recipe: clipseg_rd64.py. The authors' weights are
not under their code's licence.
"""

from configs import clipseg_rd64, common


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="", clip="", as_trained=False, steps=0)
    return clipseg_rd64.build(options, refined=True, steps=50_000)
