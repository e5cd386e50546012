"""The command that makes the same picture again, as a line of a shell."""

from __future__ import annotations

import shlex

from t2i_tf.config import DemoConfig


def drawn(options: DemoConfig, caption: str | None, seed: int, truncation: float) -> str:
    """One picture; the caption is None for a run without text."""
    if options.saved_model is not None:
        captions = "" if caption is None else f"tf.constant([{caption!r}]), "
        return _python(
            options,
            f"made = model.generate_png({captions}tf.constant([{seed}], tf.int64), tf.constant({truncation!r}))",
            'tf.io.write_file("picture.png", made["png_bytes"][0])',
        )
    captions = [] if caption is None else [("caption", caption)]
    return _sample(options, *captions, ("seeds", seed), *_less_noise(truncation))


def between(options: DemoConfig, captions: tuple[str, str], steps: int, seed: int, truncation: float) -> str:
    """The pictures from one caption to another, in a row."""
    if options.saved_model is not None:
        numbers = f"tf.constant({steps}), tf.constant({seed}, tf.int64), tf.constant({truncation!r})"
        return _python(
            options,
            f"made = model.interpolate(tf.constant({captions[0]!r}), tf.constant({captions[1]!r}), {numbers})",
            'row = tf.concat(tf.unstack(made["images"]), axis=1)',
            'tf.io.write_file("between.png", tf.io.encode_png(row))',
        )
    return _sample(
        options,
        ("mode", "interpolate_text"),
        *(("caption", caption) for caption in captions),
        ("interpolation_steps", steps),
        ("seeds", seed),
        *_less_noise(truncation),
    )


def described(options: DemoConfig, name: str) -> str:
    """A caption; name: of the picture's file."""
    if options.saved_model is not None:
        return _python(
            options,
            f"made = model.caption(tf.constant([open({name!r}, 'rb').read()]))",
            'print(made["captions"][0].numpy().decode())',
        )
    in_a_list = '"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name
    return _sample(options, ("images", in_a_list))


def _less_noise(truncation: float) -> list[tuple]:
    return [] if truncation == 1.0 else [("truncation", repr(truncation))]


def _sample(options: DemoConfig, *flags: tuple) -> str:
    chosen = [(name, getattr(options, name)) for name in ("weights", "checkpoint") if getattr(options, name) != "best"]
    flags = [("run_dir", options.run_dir), *flags, *chosen, ("out", "samples")]
    return " ".join(["t2i-sample", *(f"--{name}={shlex.quote(str(value))}" for name, value in flags)])


def _python(options: DemoConfig, *lines: str) -> str:
    """A program between lines of a shell that takes it as it is: no literal of Python spans a line."""
    load = ["import tensorflow as tf", f"model = tf.saved_model.load({options.saved_model!r})"]
    return "\n".join(["python3 - <<'EOF'", *load, *lines, "EOF"])
