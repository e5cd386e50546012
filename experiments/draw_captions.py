"""A batch job: a picture for every line of a text file, with an exported generator, on all GPUs of a machine.

    python draw_captions.py EXPORT captions.txt OUT

It needs TensorFlow alone. EXPORT is a folder of `t2i-export`. OUT gets TFRecord files of SHARD examples each, with
"caption", "seed" (the number of the line), "png" and "problem" (empty, or why the picture is grey). A file is written
beside and renamed, and one that is there is not made again: the same command goes on where it was stopped.
"""

import argparse
import os
import time
from pathlib import Path

SHARD = 1000


def example(caption, seed, png, problem):
    from tensorflow import train  # here as below, so that --help does not wait for it

    feature = {
        name: train.Feature(bytes_list=train.BytesList(value=[value]))
        for name, value in {"caption": caption, "png": png, "problem": problem}.items()
    }
    feature["seed"] = train.Feature(int64_list=train.Int64List(value=[seed]))
    return train.Example(features=train.Features(feature=feature)).SerializeToString()


def main(export, captions, out, batch_size):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # left off without AVX-512, where it is quicker too
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        generate_png = tf.saved_model.load(export).signatures["generate_png"]

    @tf.function
    def draw(captions, seeds):
        made = strategy.run(
            lambda c, s: generate_png(captions=c, seeds=s, truncation=tf.constant(1.0)), (captions, seeds)
        )
        found = {"caption": captions, "seed": seeds, "png": made["png_bytes"], "problem": made["problem"]}
        return tf.nest.map_structure(lambda x: tf.concat(strategy.experimental_local_results(x), axis=0), found)

    lines = tf.data.TextLineDataset(captions).enumerate()
    count, began = len(Path(captions).read_bytes().splitlines()), time.perf_counter()
    Path(out).mkdir(parents=True, exist_ok=True)
    for start in range(0, count, SHARD):
        path = Path(out) / f"pictures-{start:09d}.tfrecord"
        if path.exists():
            continue
        batches = lines.skip(start).take(SHARD).map(lambda seed, caption: (caption, seed)).batch(batch_size)
        beside = path.with_suffix(".partial")
        with tf.io.TFRecordWriter(str(beside)) as writer:
            for batch in strategy.experimental_distribute_dataset(batches.prefetch(2)):
                made = {name: rows.numpy() for name, rows in draw(*batch).items()}
                for row in zip(made["caption"], made["seed"], made["png"], made["problem"], strict=True):
                    writer.write(example(*row))
        beside.replace(path)
        done = min(start + SHARD, count)
        print(f"{done} of {count} lines, {time.perf_counter() - began:.1f} s, {strategy.num_replicas_in_sync} replicas")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT")
    parser.add_argument("captions", metavar="captions.txt")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--batch_size", type=int, default=64, help="pictures at a time (default: 64)")
    main(**vars(parser.parse_args()))
