"""ImageNet (ILSVRC-2012) as folders of synsets, and the subsets that StackGAN++ is trained on.

Expected in --source_dir: `train/n02085620/n02085620_10026.JPEG` ... and, for the test split, `val/n02085620/...`;
`train/` may be left out. `--subset` says which synsets are read. There are no captions; the class is the synset. Grey
and CMYK pictures, and a PNG that is named .JPEG, are in the official files and pass.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from t2i_tf.data.sources import NOT_UTF8, Example, Problems, Source, evenly, is_utf8, some, source_folder
from t2i_tf.errors import UserError

DOG = tuple(f"n{number:08d}" for number in (
    2085620, 2085782, 2085936, 2086079, 2086240, 2086646, 2086910, 2087046, 2087394, 2088094, 2088238, 2088364,
    2088466, 2088632, 2089078, 2089867, 2089973, 2090379, 2090622, 2090721, 2091032, 2091134, 2091244, 2091467,
    2091635, 2091831, 2092002, 2092339, 2093256, 2093428, 2093647, 2093754, 2093859, 2093991, 2094114, 2094258,
    2094433, 2095314, 2095570, 2095889, 2096051, 2096177, 2096294, 2096437, 2096585, 2097047, 2097130, 2097209,
    2097298, 2097474, 2097658, 2098105, 2098286, 2098413, 2099267, 2099429, 2099601, 2099712, 2099849, 2100236,
    2100583, 2100735, 2100877, 2101006, 2101388, 2101556, 2102040, 2102177, 2102318, 2102480, 2102973, 2104029,
    2104365, 2105056, 2105162, 2105251, 2105412, 2105505, 2105641, 2105855, 2106030, 2106166, 2106382, 2106550,
    2106662, 2107142, 2107312, 2107574, 2107683, 2107908, 2108000, 2108089, 2108422, 2108551, 2108915, 2109047,
    2109525, 2109961, 2110063, 2110185, 2110341, 2110627, 2110806, 2110958, 2111129, 2111277, 2111500, 2111889,
    2112018, 2112137, 2112350, 2112706, 2113023, 2113186, 2113624, 2113712, 2113799, 2113978,
))  # fmt: skip
"""The 118 breeds of ILSVRC-2012: 151 to 268, counted from 0, of its 1,000 synsets sorted by id, Chihuahua to Mexican
hairless. Wolves, dingo, dhole, African hunting dog and foxes come after them and are not meant. StackGAN++ lists the
same; they have 147,873 training pictures."""

CAT = ("n02123045", "n02123159", "n02123394", "n02123597", "n02124075")
"""Tabby, tiger cat, Persian, Siamese, Egyptian: 281 to 285 of ILSVRC-2012, 6,500 training pictures. The published code
of StackGAN++ lists 17 synsets of domestic cats; these are those of them that ILSVRC-2012 has."""

SUBSETS = {"dog": DOG, "cat": CAT}
EXTENSIONS = (".jpeg", ".jpg", ".png")
PARTS = {"train": "train", "test": "val"}
"""The official part that each split is."""


def read(options) -> Source:
    """Lists the pictures; names are `<synset>/<picture>` without extension.

    Splits: train, and val as test where `val/` has synset folders, whatever `options.split` says. Raises UserError
    when no subset is chosen, or folders of its synsets are missing or empty; with `options.allow_missing` these are
    left out and noted.
    """
    root = source_folder(options)
    if options.subset is None:
        raise UserError(f"--subset is missing: say which classes of ImageNet, {', '.join(SUBSETS)} or all")
    problems = Problems()
    examples: list[Example] = []
    notes: list[str] = []
    for split, part in PARTS.items():
        folder = root / part
        if split == "train" and not folder.is_dir():
            folder = root
        there = _synsets(folder)
        if not there and split == "train":
            raise UserError(_nothing_found(folder))
        if not there:
            notes.append(f"there are no synset folders in {folder}, so no test split")
            continue
        wanted = SUBSETS.get(options.subset, there)
        problems.add(f"synset folders missing in {folder}", [synset for synset in wanted if synset not in there])
        for synset in sorted(there.intersection(wanted)):
            files = os.listdir(folder / synset)
            pictures = sorted(file for file in files if file.lower().endswith(EXTENSIONS))
            if not pictures:
                problems.add("synset folders without a picture", [folder / synset])
            if len(files) > len(pictures):
                others = sorted(set(files) - set(pictures))
                notes.append(f"{len(others):,} files of {folder / synset} are no pictures by name ({some(others)})")
            problems.add(NOT_UTF8, [f"{synset}/{file}" for file in pictures if not is_utf8(file)])
            examples += [
                Example(split, f"{synset}/{os.path.splitext(file)[0]}", (), synset, f"{folder}/{synset}/{file}")
                for file in pictures
                if is_utf8(file)
            ]
    notes = problems.settle(root, options.allow_missing) + notes
    info = {
        "data_set": f"ImageNet, ILSVRC-2012, {options.subset}",
        "folder": str(root.resolve()),
        "subset": options.subset,
        "split": "official: train; val as test",
    }
    return Source(f"imagenet_{options.subset}", evenly(examples, options.num_images), notes, info)


def _synsets(folder: Path) -> set[str]:
    """Names of the synset folders in a folder, which need not be there."""
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if re.fullmatch(r"n\d{8}", path.name) and path.is_dir()}


def _nothing_found(folder: Path) -> str:
    message = f"{folder} holds no synset folders such as n02085620/"
    if next(folder.glob("n*.tar"), None):
        return f"{message}: unpack each n*.tar in a folder of its name"
    return f"{message}: --source_dir is the folder of train/ (and val/), or of the synsets themselves"
