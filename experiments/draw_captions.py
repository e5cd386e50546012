"""A batch job: a picture for every line of a text file, with an exported generator, on all GPUs of a machine.

    python draw_captions.py EXPORT captions.txt OUT [pictures at a time, 64]

It needs TensorFlow alone. EXPORT is a folder of `t2i-export`. OUT gets TFRecord files of SHARD examples each, with
"caption", "seed" (the number of the line), "png" and "problem" (empty, or why the picture is grey). A file is written
beside and renamed, and one that is there is not made again: the same command goes on where it was stopped.
"""

import sys
import time
from pathlib import Path

import tensorflow as tf

SHARD = 1000


def bytes_feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def example(caption, seed, png, problem):
    feature = {
        "caption": bytes_feature(caption),
        "seed": tf.train.Feature(int64_list=tf.train.Int64List(value=[seed])),
        "png": bytes_feature(png),
        "problem": bytes_feature(problem),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def main(folder, captions, out, batch_size=64):
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        generate_png = tf.saved_model.load(folder).signatures["generate_png"]

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
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
