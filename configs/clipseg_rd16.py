"""CLIPSeg, decoder width 16, plain head: `rd16-uni` (Lueddecke & Ecker 2022, table 9, row "D = 16").

Status: released. Options and recipe: clipseg_rd64.py.
"""

from configs import clipseg_rd64, common


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="", clip="", as_trained=False, steps=0)
    return clipseg_rd64.build(options, reduce_dim=16)
