from jaxseg.evaluation.table import report


def test_a_row_per_metric_a_column_per_split_baselines_in_brackets():
    results = {
        "untrained/val/miou": 0.05,
        "untrained/val/miou_baseline": 0.1,
        "val/miou": 0.5,
        "val/miou/seen": 0.25,
        "val/miou_baseline": 0.1,
        "val/miou_baseline/seen": 0.125,
        "val/iou/sea/sky": 1.0,
        "val/present_pairs@0.5": 1234.0,
        "test/image_to_text@1": 0.75,
        "test/image_to_text@1_baseline": 0.0625,
    }
    assert report(results).splitlines() == [
        "                   val            test           untrained/val",
        "image_to_text@1    -              0.750 (0.062)  -",
        "miou               0.500 (0.100)  -              0.050 (0.100)",
        "miou/seen          0.250 (0.125)  -              -",
        "present_pairs@0.5  1234           -              -",
        "(in brackets: what a trivial answer reaches)",
    ]


def test_nothing():
    assert report({}) == "no results"
