"""python main.py --config=configs/X.py[:args] --workdir=DIR --mode=train|eval|predict|convert|plan|export

Reads flags and joins the programs of `jaxseg` with the data of `input_pipeline`. `--config.k=v` overrides a field. A user's
mistake ends with one line on stderr and exit code 2; a run that was asked to end (SIGTERM) saves and exits with 0.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from jaxseg import command_line

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "configs/X.py or configs/X.py:args", lock_config=True)
flags.DEFINE_string("workdir", "", "Where checkpoints, metrics, pictures and results go.")
flags.DEFINE_enum("mode", "train", ["train", "eval", "predict", "convert", "plan", "export"], "What to do.")
flags.DEFINE_string("weights", "", "A converted or trained checkpoint; by default the newest one in workdir.")
flags.DEFINE_list("images", [], "predict: files or globs.")
flags.DEFINE_string("text", "", "predict, export: names separated by ';'.")
flags.DEFINE_string("text_file", "", "predict, export: a file with one name per line.")
flags.DEFINE_list("torch", [], "convert: files (or FILE#NAME of a dict in one), a Hugging Face folder, or org/name@commit.")
flags.DEFINE_bool("reverse", False, "convert: write .safetensors under the original names from --weights.")
flags.DEFINE_string("format", "", "convert: the original layout, where several fit (openai, timojl, huggingface).")
flags.DEFINE_string("check", "", "convert: recorded activations (.npz) to replay on the converted weights.")
flags.DEFINE_string("topology", "cpu:8", "plan: a TPU such as v5e:2x4 or v5p:4x4x4, or cpu:N.")
flags.DEFINE_string("json", "", "plan: also write the plan to this file.")
flags.DEFINE_enum("distributed", "auto", ["auto", "on", "off"], "Several hosts: find them, insist on them, or do not.")
flags.DEFINE_bool("strict_resume", False, "train: stop at a damaged checkpoint instead of using the one before.")


def run(config, workdir, mode):
    if mode == "plan":  # before JAX starts: it plans for devices that are not here
        from jaxseg import plan

        return plan.plan(config, FLAGS.topology, FLAGS.json)
    from jaxseg import runtime

    runtime.start(config, distributed=FLAGS.distributed)
    if mode == "convert":
        from jaxseg import convert

        options = {"reverse": FLAGS.reverse, "weights": FLAGS.weights, "check": FLAGS.check, "format": FLAGS.format}
        return convert.run(config, FLAGS.torch, workdir, **options)
    names = {"text": FLAGS.text, "text_file": FLAGS.text_file}
    if mode == "predict":
        from jaxseg import predict

        return predict.run(config, workdir, FLAGS.images, weights=FLAGS.weights, **names)
    if mode == "export":
        from jaxseg import export

        return export.run(config, workdir, weights=FLAGS.weights, **names)
    import jax

    from input_pipeline.module import DataModule
    from jaxseg import evaluate, train

    def make_data(config):
        return DataModule.from_config(config, jax.process_index(), jax.process_count(), training=mode == "train")

    if mode == "eval":
        return evaluate.run(config, workdir, make_data(config), weights=FLAGS.weights)
    return train.run(config, workdir, make_data, strict_resume=FLAGS.strict_resume)


def main(argv):
    try:
        if len(argv) > 1 or not (FLAGS.workdir or FLAGS.mode == "plan"):
            raise ValueError(f"unexpected arguments: {argv[1:]}" if len(argv) > 1 else "--workdir is missing")
        run(FLAGS.config, FLAGS.workdir, FLAGS.mode)
    except (ValueError, OSError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=command_line.parse)
