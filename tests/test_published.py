import os
import pickle
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from torch7_writer import Lua, Tensor, dumps

from t2i_tf import published
from t2i_tf.errors import UserError
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import char_cnn_rnn, gan_int_cls

RANDOM = np.random.RandomState(0)


def built(layer, *inputs, dtype=tf.float32):
    layer(*(tf.zeros(shape, dtype) for shape in inputs))
    return layer


def text_encoder(recurrent):
    return built(char_cnn_rnn.TextEncoder(recurrent, (5, 6, 7), 9), (1, 201), dtype=tf.int32)


def random_arrays(layers):
    """Values for every published name; positive, as variances must be."""
    return {
        name: RANDOM.uniform(0.1, 1.0, array.shape).astype("f4") for name, array in published.extract(layers).items()
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


class Malice:
    """Pickles into a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


# Reading files.


def test_npz(tmp_path):
    arrays = {"decoder_W": np.ones((2, 3), "f4"), "decoder_b_sel": np.float32(2), "1.2.weight": np.arange(3)}
    np.savez(tmp_path / "w.npz", **arrays)
    assert_same(published.read(tmp_path / "w.npz"), arrays)


def test_pickled_entries_of_npz_are_never_unpickled(tmp_path):
    objects = np.array([Malice(tmp_path / "trace")], object)
    np.savez(tmp_path / "w.npz", weight=np.ones(2), zipped_params=objects)
    assert list(published.read(tmp_path / "w.npz")) == ["weight"]
    np.savez(tmp_path / "w.npz", zipped_params=objects)
    with pytest.raises(UserError, match="holds no arrays"):
        published.read(tmp_path / "w.npz")
    assert not (tmp_path / "trace").exists()


def test_damaged_npz(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", weight=RANDOM.rand(400))
    data = (tmp_path / "w.npz").read_bytes()
    for broken in (b"", data[:-30], data[:200] + bytes(100) + data[300:], pickle.dumps(Malice(tmp_path / "trace"))):
        (tmp_path / "w.npz").write_bytes(broken)
        with pytest.raises(UserError, match=r"w\.npz: not a sound \.npz file .*fetch it again"):
            published.read(tmp_path / "w.npz")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_state_dicts(tmp_path, torch, zipped, suffix):
    layer = torch.nn.BatchNorm1d(3)
    wanted = {name: tensor.detach().numpy() for name, tensor in layer.state_dict().items()}
    wrapped = {f"module.{name}": tensor for name, tensor in layer.state_dict().items()}
    for content in (layer.state_dict(), wrapped, {"epoch": 3, "state_dict": wrapped}, dict(layer.named_parameters())):
        torch.save(content, tmp_path / f"w.{suffix}", _use_new_zipfile_serialization=zipped)
        read = published.read(tmp_path / f"w.{suffix}")
        assert_same(read, {name: wanted[name] for name in read})
        assert {"weight", "bias"} <= read.keys()


def test_nested_half_and_shared_tensors(tmp_path, torch):
    whole = torch.arange(6.0)
    content = {"G": {"a": whole.half(), "b": whole.bfloat16()}, "D": whole[1:].reshape(5, 1)[::2], "n": 3}
    content["G"]["again"] = content  # a file may hold itself
    torch.save(content, tmp_path / "w.pth")
    read = published.read(tmp_path / "w.pth")
    assert_same(
        read, {"G.a": np.arange(6, dtype="f4"), "G.b": np.arange(6, dtype="f4"), "D": np.array([[1], [3], [5]], "f4")}
    )


def test_names_written_by_python_2(tmp_path, torch):
    """The published files of 2017 hold byte strings for names."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "w.pth").read_bytes()
    assert data.count(b"X\x06\0\0\0weight") == 1  # BINUNICODE -> SHORT_BINSTRING
    (tmp_path / "w.pth").write_bytes(data.replace(b"X\x06\0\0\0weight", b"U\x06weight"))
    assert_same(published.read(tmp_path / "w.pth"), {"weight": np.ones(2, "f4")})


def test_pytorch_files_that_would_run_code(tmp_path, torch):
    for content in (
        Malice(tmp_path / "trace"),
        {"weight": torch.ones(2), "more": Malice(tmp_path / "trace")},
        torch.nn.Linear(2, 2),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"w\.pth: asks for (posix\.mkdir|torch\.nn.*Linear), which could run code"):
            published.read(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Malice(tmp_path / "trace"), protocol=2))
    with pytest.raises(UserError, match="which could run code"):
        published.read(tmp_path / "w.pth")
    assert not (tmp_path / "trace").exists()


def test_damaged_and_odd_pytorch_files(tmp_path, torch):
    torch.save({"weight": torch.rand(100)}, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    for broken in (b"", b"hello", data[:300], data[:-40]):
        (tmp_path / "w.pth").write_bytes(broken)
        with pytest.raises(UserError, match=r"w\.pth: (not a sound PyTorch file|asks for)"):
            published.read(tmp_path / "w.pth")
    for odd in (torch.ones(2, 2).to_sparse(), torch.ones(1).expand(10**12), torch.ones(2, dtype=torch.complex64)):
        torch.save({"weight": odd}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"w\.pth: weight is not a plain tensor"):
            published.read(tmp_path / "w.pth")


def test_without_pytorch(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"w\.pth: needs PyTorch to be read: pip install -e '\.\[published\]'"):
        published.read(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "name,reason",
    [
        ("w.bin", r"ends in \.npz, \.pth, \.pt, \.t7"),
        ("w.ckpt", "no such checkpoint"),
        ("w.npz", "no such file"),
        ("folder.t7", "no such file"),
    ],
)
def test_unknown_kind_and_missing_file(tmp_path, name, reason):
    (tmp_path / "folder.t7").mkdir()
    with pytest.raises(UserError, match=reason):
        published.read(tmp_path / name)


# Layouts, against the layers of PyTorch.


def layer_pairs(torch):
    images, vectors = ("image", (2, 3, 8, 8)), ("vector", (4, 5))
    return {
        "conv": (keras.layers.Conv2D(6, 4, 2, "same"), torch.nn.Conv2d(3, 6, 4, 2, 1), images),
        "one_sided": (keras.layers.Conv2D(6, (1, 3)), torch.nn.Conv2d(3, 6, (1, 3)), images),
        "transposed": (
            keras.layers.Conv2DTranspose(6, 4, 2, "same", use_bias=False),
            torch.nn.ConvTranspose2d(3, 6, 4, 2, 1, bias=False),
            images,
        ),
        "temporal": (keras.layers.Conv1D(6, 4), torch.nn.Conv1d(5, 6, 4), ("sequence", (2, 5, 9))),
        "dense": (keras.layers.Dense(7), torch.nn.Linear(5, 7), vectors),
        "norm": (BatchNormalization(), torch.nn.BatchNorm2d(3), images),
        "norm_1d": (keras.layers.BatchNormalization(epsilon=1e-5), torch.nn.BatchNorm1d(5), vectors),
        "unscaled": (
            keras.layers.BatchNormalization(epsilon=1e-5, scale=False, center=False),
            torch.nn.BatchNorm1d(5, affine=False),
            vectors,
        ),
    }


@pytest.mark.parametrize(
    "name", ["conv", "one_sided", "transposed", "temporal", "dense", "norm", "norm_1d", "unscaled"]
)
def test_a_layer_computes_what_pytorch_does(torch, name):
    ours, theirs, (kind, shape) = layer_pairs(torch)[name]
    x = RANDOM.randn(*shape).astype("f4")
    last = {"image": (0, 2, 3, 1), "sequence": (0, 2, 1), "vector": (0, 1)}[kind]  # channels last
    back = np.argsort(last)
    built(ours, x.transpose(last).shape)
    state = {
        f"1.{key}": tensor.numpy() + (0 if tensor.ndim == 0 else RANDOM.rand(*tensor.shape).astype("f4"))
        for key, tensor in theirs.state_dict().items()
    }
    theirs.load_state_dict({key.removeprefix("1."): torch.tensor(array) for key, array in state.items()})
    report = published.assign({"1": ours}, state, "w.pth")
    with torch.no_grad():
        wanted = theirs.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.transpose(ours(x.transpose(last)), back), wanted, atol=2e-5)
    state.pop("1.num_batches_tracked", None)
    assert_same(published.extract({"1": ours}), state)
    assert set(report.assigned) == state.keys()


def test_an_embedding_and_a_layout_of_ones_own():
    words, dense = built(keras.layers.Embedding(5, 3), (1, 2)), built(keras.layers.Dense(4), (1, 2))
    flipped = {
        "weight": published.Weight(dense.kernel, lambda a: a.T[::-1], lambda a: a[::-1].T),
        "bias": published.permuted(dense.bias, 0),
    }
    layers = {"encoder": words, "fc": flipped}
    arrays = random_arrays(layers)
    published.assign(layers, arrays, "w.npz")
    assert_same(published.extract(layers), arrays)
    np.testing.assert_array_equal(words.embeddings, arrays["encoder.weight"])
    np.testing.assert_array_equal(dense.kernel, arrays["fc.weight"].T[::-1])


def test_layers_without_a_published_layout_or_not_built():
    with pytest.raises(TypeError, match="LSTM"):
        published.extract({"rnn": built(keras.layers.LSTM(2), (1, 3, 2))})
    with pytest.raises(ValueError, match="not built"):
        published.extract({"fc": keras.layers.Dense(2, name="fc")})


# Complete or refused.


@pytest.fixture
def layers():
    return {
        "1": built(keras.layers.Conv2D(2, 3, use_bias=False), (1, 4, 4, 3)),
        "2": built(BatchNormalization(), (1, 4, 4, 2)),
        "3": built(keras.layers.Dense(5), (1, 2)),
    }


def test_everything_wrong_is_named_and_nothing_is_set(layers):
    before, arrays = published.extract(layers), random_arrays(layers)
    del arrays["2.running_var"], arrays["3.bias"]
    arrays |= {
        "1.weight": np.ones((3, 2, 3, 3)),
        "3.weight": np.full((5, 2), np.nan),
        "1.bias": np.ones(2),
        "2.weight": np.array(["a", "b"]),
        "4.weight": np.ones(1),
        "odd\nname": np.ones(1),
        "2.num_batches_tracked": np.int64(7),
    }
    with pytest.raises(UserError) as error:
        published.assign(layers, arrays, "w.t7")
    message = str(error.value)
    assert "\n" not in message and message.startswith("w.t7 does not fit the network; ")
    for part in (
        "missing: 2 (2.running_var, 3.bias)",
        r"left over: 3 (1.bias, 4.weight, 'odd\nname')",
        "misshapen: 1 (1.weight is (3, 2, 3, 3), not (2, 3, 3, 3))",
        "not finite numbers: 2 (2.weight, 3.weight)",
        "check that",
    ):
        assert part in message
    assert_same(published.extract(layers), before)


def test_long_lists_are_cut(layers):
    with pytest.raises(UserError, match=r"left over: 12 \(x0\.w, .*x9\.w, \.\.\.\)"):
        published.assign(layers, {f"x{i}.w": np.ones(1) for i in range(12)}, "w.t7")


def test_doubles_beyond_single_precision_are_refused(layers):
    arrays = random_arrays(layers) | {"3.bias": np.full(5, 1e300)}
    with pytest.raises(UserError, match=r"not finite numbers: 1 \(3\.bias\)"):
        published.assign(layers, arrays, "w.t7")


def test_dropped_arrays_are_reported(layers):
    arrays = random_arrays(layers) | {"1.bias": np.array([1e-5, -3e-4])}
    report = published.assign(layers, arrays, "w.t7", drop=("bias",))
    assert report.dropped == {"1.bias": pytest.approx(3e-4)}
    assert str(report) == "w.t7: 7 arrays, 77 numbers set; dropped 1 (1.bias), largest |value| 0.0003"
    assert "dropped" not in str(published.assign(layers, random_arrays(layers), "w.t7", drop=("bias",)))
    with pytest.raises(UserError, match=r"left over: 1 \(5\.bias\)"):  # not of a layer of ours
        published.assign(layers, arrays | {"5.bias": np.zeros(2)}, "w.t7", drop=("bias",))


def test_gradients_under_published_names(layers):
    dense = layers["3"]
    values = [RANDOM.rand(2, 5), None, RANDOM.rand(2)]
    named = published.to_published(layers, [dense.kernel, dense.bias, layers["2"].gamma], values)
    assert_same(named, {"3.weight": values[0].T, "2.weight": values[2]})
    assert published.to_published({"3": dense}, [layers["2"].gamma], [values[2]]) == {}


# The papers' networks.


NETWORKS = {
    "generator": lambda: (published.gan_int_cls.generator_layers, built(gan_int_cls.Generator(8, 6), (1, 4), (1, 10))),
    "large_generator": lambda: (
        published.gan_int_cls.generator_layers,
        built(gan_int_cls.Generator(8, 6, large=True), (1, 4), (1, 10)),
    ),
    "discriminator": lambda: (
        published.gan_int_cls.discriminator_layers,
        built(gan_int_cls.Discriminator(4, 6), (1, 64, 64, 3), (1, 10)),
    ),
    "cls_discriminator": lambda: (
        published.gan_int_cls.discriminator_layers,
        built(gan_int_cls.Discriminator(4, 6, "cls", residual=False), (1, 64, 64, 3), (1, 10)),
    ),
    "gru": lambda: (published.char_cnn_rnn.text_encoder_layers, text_encoder("gru")),
    "rnn": lambda: (published.char_cnn_rnn.text_encoder_layers, text_encoder("rnn")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_variable_of_a_network_has_a_published_name(name):
    layers, network = NETWORKS[name]()
    arrays = random_arrays(layers(network))
    published.assign(layers(network), arrays, "w.npz")
    assert_same(published.extract(layers(network)), arrays)
    variables = network.trainable_variables
    named = published.to_published(layers(network), variables, [variable.numpy() for variable in variables])
    assert len(named) == len(variables)
    assert len(arrays) == len(network.variables)


def test_places_of_a_large_generator():
    """Torch7 order: block, sum, block, sum, ReLU, so everything behind moves by two, then by four."""
    layers, network = NETWORKS["large_generator"]()
    layers = layers(network)
    assert layers["10"] is network.upsample_8 and layers["12.2.1"] is network.residual_8.conv1
    assert layers["17"] is network.upsample_16 and layers["23"] is network.to_image


def generator_tree(arrays, biases):
    """The generator as Torch7 saved it, after conversion to the cuDNN backend."""

    def tensors(place):
        return {name.rpartition(".")[2]: array for name, array in arrays.items() if name.rpartition(".")[0] == place}

    def conv(place, kind="SpatialConvolution"):
        fields = tensors(place)
        width = fields["weight"].shape[1 if "Full" in kind else 0]
        return Lua(f"cudnn.{kind}", {**fields, "bias": np.full(width, biases, "f4"), "gradInput": np.zeros(0, "f4")})

    def norm(place):
        return Lua("cudnn.SpatialBatchNormalization", {**tensors(place), "eps": 1e-5}, version=2)

    def sequential(*modules, kind="Sequential"):
        return Lua(f"nn.{kind}", {"modules": list(modules)})

    def residual(place):
        block = sequential(
            conv(f"{place}.1"),
            norm(f"{place}.2"),
            relu,
            conv(f"{place}.4"),
            norm(f"{place}.5"),
            relu,
            conv(f"{place}.7"),
            norm(f"{place}.8"),
        )
        return sequential(Lua("nn.Identity"), block, kind="ConcatTable"), Lua("nn.CAddTable"), relu

    relu, full = Lua("cudnn.ReLU", {"inplace": True}), "SpatialFullConvolution"
    text = sequential(Lua("nn.Linear", tensors("1.2.1")), Lua("nn.LeakyReLU"))
    return sequential(
        sequential(Lua("nn.Identity"), text, kind="ParallelTable"),
        Lua("nn.JoinTable"),
        conv("3", full),
        norm("4"),
        *residual("5.2"),
        conv("8", full),
        norm("9"),
        *residual("10.2"),
        conv("13", full),
        norm("14"),
        relu,
        conv("16", full),
        norm("17"),
        relu,
        conv("19", full),
        Lua("cudnn.Tanh"),
    )


def test_the_published_generator_from_torch7(tmp_path):
    layers, network = NETWORKS["generator"]()
    arrays = random_arrays(layers(network))
    (tmp_path / "G.t7").write_bytes(dumps(generator_tree(arrays, 1e-5)))
    imported = published.load("gan_int_cls_generator", tmp_path / "G.t7")
    hyperparameters = imported.hyperparameters
    assert (hyperparameters.generator_width, hyperparameters.text_projection, hyperparameters.noise_dim) == (8, 6, 4)
    assert imported.context.text_dim == 10 and not hyperparameters.large_generator
    assert_same(published.extract(layers(imported.recipe.generator)), arrays)
    assert len(imported.report.dropped) == 11 and set(imported.report.dropped.values()) == {float(np.float32(1e-5))}


def test_generators_from_npz(tmp_path):
    layers, network = NETWORKS["large_generator"]()
    arrays = random_arrays(layers(network))
    np.savez(tmp_path / "G.npz", **arrays)
    imported = published.load("gan_int_cls_generator", tmp_path / "G.npz")
    assert imported.hyperparameters.large_generator
    assert_same(published.extract(layers(imported.recipe.generator)), arrays)
    for change, reason in (
        ({"3.weight": np.ones((5, 64, 4, 4))}, "fits no generator"),
        ({"3.weight": np.ones(5)}, r"no usable 3\.weight"),
        ({"8.weight": np.ones(5)}, "left over"),
    ):
        np.savez(tmp_path / "G.npz", **{**arrays, **change})
        with pytest.raises(UserError, match=rf"G\.npz.*{reason}"):
            published.load("gan_int_cls_generator", tmp_path / "G.npz")


def text_encoder_graph(arrays, steps):
    """The unrolled graph as nngraph saved it: the modules of every step are clones that share their tensors."""

    def linear(name):
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        width = len(bias)
        flat = storages.setdefault(name, np.concatenate([weight.ravel(), bias]))
        return Lua(
            "nn.Linear",
            {
                "weight": Tensor(flat, weight.shape, (weight.shape[1], 1)),
                "bias": Tensor(flat, (width,), (1,), 1 + weight.size),
            },
        )

    def mapped(name):
        return Lua("nn.Sequential", {"modules": [linear(f"rnn.{name}")]})

    def temporal(name):
        weight = arrays[f"{name}.weight"]
        out, inputs, kernel = weight.shape
        matrix = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(out, kernel * inputs)  # time outside
        return Lua(
            "nn.TemporalConvolution",
            {
                "weight": matrix,
                "bias": arrays[f"{name}.bias"],
                "kW": kernel,
                "inputFrameSize": inputs,
                "outputFrameSize": out,
            },
        )

    def other(kind="CAddTable"):
        return Lua(f"nn.{kind}")

    storages = {}
    if "rnn.i2h_update.weight" in arrays:
        first = [mapped("i2h"), other("Tanh"), other("Identity")]
        step = [
            mapped("i2h_update"),
            mapped("h2h_update"),
            other(),
            other("Sigmoid"),
            other("MulConstant"),
            mapped("i2h_reset"),
            mapped("h2h_reset"),
            other(),
            other("Sigmoid"),
            other("CMulTable"),
            mapped("h2h"),
            mapped("i2h"),
            other(),
            other("Tanh"),
            other("CMulTable"),
        ]
        # As in the published files: 1 input map, 4, 5 update, 9, 10 reset, 14 candidate, counted from 0.
        recurrent = [other("Identity"), *first, *step]
    else:
        recurrent = [other("Identity"), mapped("i2h"), other("ReLU"), other("Identity"), mapped("i2h"), mapped("h2h")]
        step = [other("Identity"), mapped("i2h"), mapped("h2h"), other(), other("ReLU")]
    for _ in range(steps - 2):
        recurrent += [*step]
    convolutions = [
        temporal("conv1"),
        other("Threshold"),
        other("TemporalMaxPooling"),
        temporal("conv2"),
        other("Threshold"),
        other("TemporalMaxPooling"),
        temporal("conv3"),
        other("Threshold"),
    ]
    modules = [
        other("Identity"),
        Lua("nn.Sequential", {"modules": convolutions}),
        other("SplitTable"),
        Lua("nn.gModule", {"modules": recurrent}),
        other("Dropout"),
        linear("emb_proj"),
    ]
    return Lua("nn.gModule", {"modules": modules})


@pytest.mark.parametrize("name,steps", [("gru", 18), ("rnn", 8)])
def test_the_published_text_encoder_from_torch7(tmp_path, name, steps):
    layers, network = NETWORKS[name]()
    arrays = random_arrays(layers(network))
    graph = text_encoder_graph(arrays, steps)
    checkpoint = {
        "protos": {"enc_doc": graph, "enc_image": Lua("nn.Identity")},
        "opt": {"seed": 123, "savefile": "x"},
        "train_losses": [1.5, 1.25],
        "i": 30000,
        "vocab": {"a": 1},
    }
    for content in (checkpoint, graph):  # birds and flowers; COCO
        (tmp_path / "encoder.t7").write_bytes(dumps(content))
        imported = published.load("char_cnn_rnn", tmp_path / "encoder.t7")
        hyperparameters = imported.hyperparameters
        assert hyperparameters.recurrent == name and hyperparameters.text_channels == (5, 6, 7)
        assert hyperparameters.embedding_dim == 9
        assert_same(published.extract(layers(imported.recipe.text_encoder)), arrays)
        assert imported.report.dropped == {}


def test_a_text_encoder_from_pytorch(tmp_path, torch):
    layers, network = NETWORKS["gru"]()
    arrays = random_arrays(layers(network))
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "encoder.pth")
    imported = published.load("char_cnn_rnn", tmp_path / "encoder.pth")
    assert_same(published.extract(layers(imported.recipe.text_encoder)), arrays)
    assert str(imported.report).startswith(f"{tmp_path / 'encoder.pth'}: {len(arrays)} arrays, ")


def test_a_file_of_another_scheme_and_an_unknown_scheme(tmp_path):
    np.savez(tmp_path / "w.npz", **{"3.weight": np.ones((4, 8, 4, 4))})
    with pytest.raises(UserError, match=r"no usable conv1\.weight, conv2\.weight.*it holds 1 \(3\.weight\)"):
        published.load("char_cnn_rnn", tmp_path / "w.npz")
    with pytest.raises(UserError, match=r"--scheme is one of gan_int_cls_generator \(.*; char_cnn_rnn \("):
        published.load("stackgan", tmp_path / "w.npz")
