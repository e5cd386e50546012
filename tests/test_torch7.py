import struct

import numpy as np
import pytest
from torch7_writer import Closure, Hashable, Lua, Tensor, dumps

from t2i_tf import torch7
from t2i_tf.errors import UserError


@pytest.fixture
def load(tmp_path):
    def load(value, **options):
        path = tmp_path / "file.t7"
        path.write_bytes(value if isinstance(value, bytes) else dumps(value, **options))
        return torch7.load(path)

    return load


def conv(weight, bias=None, type_name="cudnn.SpatialConvolution", **fields):
    return Lua(type_name, {"weight": weight, "bias": bias, "gradWeight": weight * 0, **fields})


def norm(width, version=2, **fields):
    values = np.random.RandomState(0).rand(4, width).astype("f4")
    tensors = dict(zip(("weight", "bias", "running_mean", "running_var"), values, strict=True))
    return Lua("nn.SpatialBatchNormalization", {**tensors, "eps": 1e-5, **fields}, version)


def sequential(*modules):
    return Lua("nn.Sequential", {"modules": list(modules), "train": False, "output": np.zeros((2, 3), "f4")})


def test_bytes_written_by_hand(load):
    """A table {answer = 42} as the format says: type 3, index 1, size 1, string of 6 bytes, number."""
    data = struct.pack("<iiiii", 3, 1, 1, 2, 6) + b"answer" + struct.pack("<id", 1, 42.0)
    assert dict(load(data)) == {"answer": 42.0}


def test_plain_values(load):
    assert load(None) is None
    assert load(-1.5) == -1.5
    assert load(True) is True and load(False) is False
    assert load("Gänsefüßchen ✓") == "Gänsefüßchen ✓"
    assert load(dumps(b"\xff\xfe")) == r"\xff\xfe"
    table = load({"a": [1, 2, [3]], "gone": None, True: "yes"})
    assert set(table) == {"a", True}
    assert table["a"].sequence()[:2] == [1.0, 2.0] and table["a"][3.0].sequence() == [3.0]


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"])
def test_tensors_of_every_type(load, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = load(array)
    assert read.dtype == np.dtype(dtype) and not read.flags.writeable
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    "name,dtype", [("Cuda", "<f4"), ("CudaDouble", "<f8"), ("CudaHalf", "<f2"), ("CudaLong", "<i8")]
)
def test_cuda_tensors(load, name, dtype):
    storage = np.arange(6).astype(dtype)
    np.testing.assert_array_equal(load(Tensor(storage, (2, 3), (3, 1), name=name)), storage.reshape(2, 3))


def test_views_share_a_storage(load):
    storage = np.arange(20, dtype="f4")
    whole, transposed = Tensor(storage, (4, 5), (5, 1)), Tensor(storage, (3, 2), (1, 5), start=7)
    first, second, again = load([whole, transposed, whole]).sequence()
    np.testing.assert_array_equal(second, storage.reshape(4, 5)[1:3, 1:4].T)
    assert np.shares_memory(first, second) and again is first


def test_an_empty_tensor_and_an_expanded_one(load):
    assert load(Tensor(np.zeros(0, "f4"), (), ())).size == 0
    np.testing.assert_array_equal(load(Tensor(np.ones(1, "f4"), (2, 3), (0, 0))), np.ones((2, 3)))


def test_longs_of_four_bytes(load):
    """Torch on Windows and 32-bit systems wrote the longs of its machine."""
    value = {"sizes": np.arange(4), "weight": np.arange(6, dtype="f4").reshape(2, 3)}
    read = load(value, long_format="l" if struct.calcsize("<l") == 4 else "i")
    np.testing.assert_array_equal(read["sizes"], value["sizes"])
    np.testing.assert_array_equal(read["weight"], value["weight"])


@pytest.mark.parametrize("version", [None, 0, 1, 2])
def test_class_headers_with_and_without_version(load, version):
    record = load(Lua("nn.Linear", {"weight": np.eye(2)}, version))
    assert (record.type_name, record.version) == ("nn.Linear", version or 0)
    np.testing.assert_array_equal(record.fields["weight"], np.eye(2))


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_functions_are_passed_over(load, kind):
    closure = Closure([{"name": "x", "value": 3}], kind)
    first, number, second = load([closure, 5, closure]).sequence()
    assert isinstance(first, torch7.Function) and number == 5.0
    assert (first is second) == (kind != 6)  # functions of type 6 were written without an index


def test_shared_and_circular_references(load):
    child = Lua("nngraph.Node", {})
    parent = Lua("nngraph.Node", {"children": [child, child], "data": Hashable([(child, 1)])})
    child.fields["parent"] = parent
    read = load(parent)
    first, second = read.fields["children"].sequence()
    assert first is second and first.fields["parent"] is read
    assert read.fields["data"][first] == 1.0  # objects may be keys of tables


def test_deeper_than_python_recurses(load):
    value = "bottom"
    data = b"".join(struct.pack("<iii", 3, index, 1) + struct.pack("<id", 1, 1.0) for index in range(1, 5001))
    table = load(data + dumps(value))
    for _ in range(5000):
        table = table[1.0]
    assert table == "bottom"


def test_every_truncation_is_refused(load):
    data = dumps(sequential(conv(np.ones((2, 3, 1, 1), "f4"), np.ones(2, "f4")), Closure([1])))
    assert isinstance(load(data), torch7.Record)
    for length in range(len(data)):
        with pytest.raises(UserError, match=r"file\.t7: .*byte \d+.*fetch it again"):
            load(data[:length])


def test_no_damaged_byte_does_anything_but_refuse_or_read(load):
    data = dumps(sequential(Lua("nn.Linear", {"weight": np.ones((2, 3), "f4"), "kW": 3}, 2), Closure([1])))
    for position in range(len(data)):
        for value in (0, 0x7F, 0xFF):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                torch7.parameters(load(damaged), "file.t7")
            except UserError:
                continue


@pytest.mark.parametrize(
    "reason,data",
    [
        ("no type of value", struct.pack("<i", 9)),
        ("no type of value", b"\x80\x04\x95hello"),
        ("bytes are announced", struct.pack("<ii", 2, 2**31 - 1)),
        ("bytes are announced", struct.pack("<ii", 2, -1)),
        ("bytes are announced", struct.pack("<iii", 3, 1, 2**31 - 1)),
        ("follow the end", dumps(1.0) + b"\0"),
        ("key is nil", dumps(Hashable([(None, 1)]))),
        ("key is nil or a tensor", dumps(Hashable([(np.ones(1), 1)]))),
        ("table of fields", dumps(Lua("nn.Linear")).replace(struct.pack("<iii", 3, 2, 0), struct.pack("<i", 0))),
        ("dimensions", dumps(np.ones((1,) * 17))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (5,), (1,)))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (4,), (1,), start=2))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (4,), (1,), start=0))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (2, 2), (2, 2)))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (2,), (-1,), start=4))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (-1, 4), (1, 1)))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (2**62, 2**62), (0, 0)))),
        ("in a storage of 4", dumps(Tensor(np.ones(4), (2**62, 2), (2**62, 1)))),
        (
            "storage is none, or of another type",
            dumps(np.ones(4, "f4")).replace(b"\x12\0\0\0torch.FloatStorage", b"\x10\0\0\0torch.IntStorage"),
        ),
    ],
)
def test_hostile_files(load, reason, data):
    with pytest.raises(UserError, match=reason):
        load(data)


def test_a_strided_view_is_no_storage(load):
    """Reading through a view as if it were a storage would reach beyond it."""
    view = Tensor(np.ones(9), (3,), (3,))
    data = dumps([view, Tensor(view.storage, (9,), (1,))])
    assert data.endswith(struct.pack("<ii", 4, 3))  # the second tensor refers to the storage, the file's third object
    with pytest.raises(UserError, match="storage is none"):
        load(data[:-4] + struct.pack("<i", 2))  # now to the view, its second


def test_nesting_and_number_of_values_are_limited(load, monkeypatch):
    monkeypatch.setattr(torch7, "MAX_DEPTH", 50)
    with pytest.raises(UserError, match="more than 50 deep"):
        load(b"".join(struct.pack("<iii", 3, index, 1) for index in range(1, 60)))
    monkeypatch.setattr(torch7, "MAX_VALUES", 20)
    with pytest.raises(UserError, match="more than 20 values"):
        load([1] * 20)


def test_text_mode_and_missing_file(load, tmp_path):
    with pytest.raises(UserError, match="text mode.*save it in binary"):
        load(b"4\n1\n3\nV 1\n13\nnn.Sequential\n")
    with pytest.raises(UserError, match=r"none\.t7: cannot be read"):
        torch7.load(tmp_path / "none.t7")


def test_parameters_by_place(load):
    text = Lua("nn.Linear", {"weight": np.ones((4, 3), "f4"), "bias": np.ones(4, "f4")})
    branch = Lua("nn.ParallelTable", {"modules": [Lua("nn.Identity"), sequential(text, Lua("nn.LeakyReLU"))]})
    network = sequential(branch, Lua("nn.JoinTable"), conv(np.ones((2, 5, 4, 4), "f4")), norm(5))
    arrays = torch7.parameters(load(network), "G.t7")
    assert list(arrays) == [
        "1.2.1.weight",
        "1.2.1.bias",
        "3.weight",
        "4.weight",
        "4.bias",
        "4.running_mean",
        "4.running_var",
    ]
    assert arrays["3.weight"].shape == (2, 5, 4, 4)
    table = torch7.parameters(
        load({"protos": {"enc_doc": network}, "txt": np.ones((2, 3)), "losses": [1, 2], "more": [np.ones(1)]}), "G.t7"
    )
    assert {f"protos.enc_doc.{name}" for name in arrays} | {"txt", "more.1"} == set(table)


def test_convolutions_stored_as_matrices(load):
    weight = np.arange(2 * 3 * 4 * 5, dtype="f4").reshape(2, 3, 4, 5)  # out, in, rows, columns
    spatial = conv(weight.reshape(2, -1), None, "nn.SpatialConvolutionMM", nInputPlane=3, kH=4, kW=5)
    matrix = np.arange(2 * 4 * 3, dtype="f4").reshape(2, 12)  # out, then position outside, input channel inside
    temporal = conv(matrix, None, "nn.TemporalConvolution", inputFrameSize=3, kW=4)
    arrays = torch7.parameters(load(sequential(spatial, temporal)), "G.t7")
    np.testing.assert_array_equal(arrays["1.weight"], weight)
    assert arrays["2.weight"].shape == (2, 3, 4)
    assert arrays["2.weight"][1, 2, 3] == matrix[1, 3 * 3 + 2]


def test_running_deviation_of_early_files(load):
    variance = np.array([0.5, 2.0, 9.0], "f4")
    early = norm(3, version=None, running_std=(1 / np.sqrt(variance + 1e-3)).astype("f4"), eps=1e-3)
    del early.fields["running_var"]
    arrays = torch7.parameters(load(sequential(early)), "G.t7")
    np.testing.assert_allclose(arrays["1.running_var"], variance, rtol=1e-5)


def test_shared_tensors_are_named_once(load):
    """The steps of an unrolled recurrence share their storage; equal values elsewhere stay two parameters."""
    storage = np.arange(8, dtype="f4")
    first, clone, other = (
        Lua("nn.Linear", {"weight": Tensor(values, (2, 2), (2, 1), start)})
        for values, start in ((storage, 3), (storage, 3), (storage.copy(), 3))
    )
    arrays = torch7.parameters(load(sequential(first, clone, other, first)), "G.t7")
    assert list(arrays) == ["1.weight", "3.weight"]


def test_a_graph_without_a_list_of_modules(load):
    linear = Lua("nn.Linear", {"weight": np.ones((1, 1))})
    nodes = [Lua("nngraph.Node", {"data": {}}), Lua("nngraph.Node", {"data": {"module": linear}})]
    assert list(torch7.parameters(load(Lua("nn.gModule", {"forwardnodes": nodes})), "G.t7")) == ["1.weight"]


def test_a_container_that_holds_itself(load):
    network = sequential(conv(np.ones((1, 1, 1, 1), "f4")))
    network.fields["modules"].append(network)
    assert list(torch7.parameters(load(network), "G.t7")) == ["1.weight"]


@pytest.mark.parametrize(
    "fields",
    [
        {"nInputPlane": 3, "kH": 4, "kW": 4},
        {"nInputPlane": float("nan"), "kH": 4, "kW": 5},
        {"nInputPlane": "3", "kH": 4, "kW": 5},
        {"nInputPlane": 3, "kH": -4, "kW": -5},
        {"inputFrameSize": 7, "kW": 2},
    ],
)
def test_fields_that_contradict_a_weight(load, fields):
    network = load(sequential(conv(np.ones((2, 60), "f4"), **fields)))
    with pytest.raises(UserError, match=r"G\.t7: 1: .*fetch it again"):
        torch7.parameters(network, "G.t7")


def test_against_the_torchfile_package(tmp_path):
    """An independent reader sees the same values in a file with sharing, views and classes."""
    torchfile = pytest.importorskip("torchfile")
    storage = np.random.RandomState(0).randn(30).astype("f4")
    shared = Lua("nn.Linear", {"weight": Tensor(storage, (3, 4), (4, 1), 5), "bias": Tensor(storage, (3,), (1,), 28)})
    network = sequential(shared, norm(4), shared, Closure([1]))
    (tmp_path / "G.t7").write_bytes(dumps({"net": network, "name": "G", "sizes": np.arange(3), "epoch": 7}))
    ours = torch7.load(tmp_path / "G.t7")
    theirs = torchfile.load(str(tmp_path / "G.t7"))
    assert theirs[b"name"] == b"G" and theirs[b"epoch"] == ours["epoch"] == 7
    np.testing.assert_array_equal(theirs[b"sizes"], ours["sizes"])
    modules = ours["net"].fields["modules"].sequence()
    for ours_module, theirs_module in zip(modules[:3], theirs[b"net"].modules[:3], strict=True):
        for name, value in ours_module.fields.items():
            np.testing.assert_array_equal(theirs_module[name.encode()], value, err_msg=name)
