"""Installation of t2i_tf. Ranges are bounded: what is named here is what the suite runs on."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="t2i_tf",
    version=re.search(r'__version__ = "(.+)"', (HERE / "t2i_tf/__init__.py").read_text())[1],
    description="The classic caption-to-image models, faithful and fast, in TensorFlow/Keras",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["t2i_tf", "t2i_tf.*"]),
    package_data={"t2i_tf": ["py.typed"], "t2i_tf.web": ["human_rank.html", "page.css", "page.js"]},
    install_requires=[
        "tensorflow>=2.20,<2.22",
        "keras>=3.10,<4",
        "tensorflow-hub>=0.16.1,<0.17",
        "setuptools<81",  # tensorflow-hub imports pkg_resources, which later versions lack
        "numpy>=1.26,<3",
        "absl-py>=2.1,<3",
        "pillow>=10.1,<14",
        "tensorboard>=2.20,<2.22",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],  # the same TensorFlow, and NVIDIA's libraries as wheels
        "published": ["torch>=2.6,<3"],
        "captions": ["pycocoevalcap>=1.2,<2"],  # METEOR and the Penn Treebank tokens need a Java runtime too
        "lsun": ["lmdb>=1.4,<4"],
        "plots": ["matplotlib>=3.8,<4"],
        "web": ["gradio>=6.31,<7", "starlette>=0.40,<2", "uvicorn>=0.30,<1"],
        "dev": [
            "pytest>=8,<10",
            "pytest-xdist>=3.5,<4",
            "ruff>=0.8,<1",
            "scipy>=1.11,<2",
            "lmdb>=1.4,<4",
            "matplotlib>=3.8,<4",
            "torchfile>=0.1,<0.2",
            "pycocoevalcap>=1.2,<2",
            "gradio>=6.31,<7",
            "starlette>=0.40,<2",
            "uvicorn>=0.30,<1",
            "playwright>=1.50,<2",  # drives a Chromium that is installed; tests of pages are left out without one
        ],
    },
    entry_points={
        "console_scripts": [
            "t2i-prepare = t2i_tf.cli:prepare",
            "t2i-train = t2i_tf.cli:train",
            "t2i-sample = t2i_tf.cli:sample",
            "t2i-export = t2i_tf.cli:export",
            "t2i-demo = t2i_tf.cli:demo",
            "t2i-evaluate = t2i_tf.cli:evaluate",
            "t2i-table = t2i_tf.cli:table",
            "t2i-benchmark = t2i_tf.cli:benchmark",
            "t2i-human-rank = t2i_tf.cli:human_rank",
            "t2i-import-weights = t2i_tf.cli:import_weights",
        ]
    },
)
