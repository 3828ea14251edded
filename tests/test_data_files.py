"""Bundled real data, and files: what is read, and every way in which one can be bad."""

import builtins
import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.data import (
    Dataset,
    _files,
    breast_cancer,
    check_no_parallel_rows,
    check_unit_rows,
    diabetes,
    digits,
    load,
    save,
)


# ---- real data ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape"),
    [(digits, (1797, 64)), (breast_cancer, (569, 30)), (diabetes, (442, 10))],
)
def test_real_data_are_unit_and_distinct(make, shape):
    data = make()
    assert data.inputs.shape == shape
    assert data.targets.shape == shape[:1]
    assert data.normalised
    assert data.name == make.__name__
    check_unit_rows(data.inputs)
    check_no_parallel_rows(data.inputs)
    assert data.drop_duplicates().n == data.n
    raw = make(normalise=False)
    assert not raw.normalised
    np.testing.assert_allclose(raw.normalise().inputs, data.inputs, atol=1e-6)


def test_real_data_have_the_default_dtype(dtype):
    assert diabetes().dtype == dtype
    assert digits("one_hot").dtype == dtype
    assert breast_cancer(dtype="float32").dtype == np.float32


def test_digits_targets():
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    parity = digits(normalise=False)
    np.testing.assert_array_equal(parity.inputs, pixels / 16)
    assert np.linalg.matrix_rank(pixels) == 61
    # The first images are 0, 1, 2, ..., 9.
    np.testing.assert_array_equal(parity.targets[:10], [1, -1] * 5)
    np.testing.assert_array_equal(digits("value").targets, digit)
    one_hot = digits("one_hot").targets
    assert one_hot.shape == (1797, 10)
    np.testing.assert_array_equal(np.argmax(one_hot, axis=1), digit)
    np.testing.assert_array_equal(np.sum(one_hot, axis=1), 1)


def test_digits_classes():
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    data = digits(classes=(8, 3), normalise=False)
    assert data.name == "digits 8 and 3"
    kept = (digit == 3) | (digit == 8)
    np.testing.assert_array_equal(data.inputs, pixels[kept] / 16)
    np.testing.assert_array_equal(data.targets == 1, digit[kept] == 8)
    np.testing.assert_array_equal(data.targets == -1, digit[kept] == 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "class"}, "target is 'class'; expected one of 'parity', 'value'"),
        ({"classes": (3, 3)}, r"classes is \(3, 3\).*two different digits"),
        ({"classes": (3, 10)}, r"classes is \(3, 10\)"),
        ({"classes": (3, 8), "target": "value"}, "with target 'value'; .* no target"),
    ],
)
def test_digits_refusals(arguments, words):
    # Past the tests' own type checks, as a user calls it.
    plain = getattr(digits, "__wrapped__", digits)
    with pytest.raises(ValueError, match=words):
        plain(**arguments)


@pytest.mark.parametrize("make", [breast_cancer, diabetes])
def test_standardised(make, float64):
    data = make(normalise=False)
    np.testing.assert_allclose(np.mean(data.inputs, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.mean(data.inputs**2, axis=0), 1, rtol=1e-12)
    if make is diabetes:
        np.testing.assert_allclose(np.mean(data.targets), 0, atol=1e-12)
        np.testing.assert_allclose(np.mean(data.targets**2), 1, rtol=1e-12)
    else:
        assert int(np.sum(data.targets == 1)) == 357  # benign
        assert int(np.sum(data.targets == -1)) == 212
        # Malignant tumours are larger: the first measurement is the mean radius.
        assert float(np.mean(data.inputs[data.targets == -1, 0])) > 0.5


def without(monkeypatch, package):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)


def test_missing_extras_say_what_to_install(monkeypatch, tmp_path):
    without(monkeypatch, "sklearn")
    with pytest.raises(ImportError, match=r'pip install "jaxrelu\[data\]"'):
        diabetes()
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    without(monkeypatch, "pyarrow")
    with pytest.raises(ImportError, match=r'pyarrow.*pip install "jaxrelu\[data\]"'):
        load(path, targets="y")


# ---- npz ----------------------------------------------------------------------------


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


X = np.arange(6.0).reshape(3, 2)
Y = np.array([1.0, -1.0, 2.0])


def test_save_and_load(tmp_path, dtype):
    data = Dataset(X[1:], np.stack([Y, -Y], 1)[1:], name="a name").normalise()
    save(data, tmp_path / "a.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    back = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.inputs, data.inputs)
    np.testing.assert_array_equal(back.targets, data.targets)
    assert (back.dtype, back.name, back.normalised) == (dtype, "a name", True)
    assert load(tmp_path / "a.npz", name="other").name == "other"


def test_load_of_saved_in_another_dtype(tmp_path, float64):
    save(Dataset(X[1:], Y[1:]).normalise(), tmp_path / "double.npz")
    single = load(tmp_path / "double.npz", dtype="float32")
    assert single.dtype == np.float32
    assert single.normalised
    save(single, tmp_path / "single.npz")
    double = load(tmp_path / "single.npz", dtype="float64")
    assert not double.normalised


def test_save_refusals(tmp_path, monkeypatch):
    data = Dataset(X, Y)
    with pytest.raises(ValueError, match=r"suffix '.csv'; expected '.npz'"):
        save(data, tmp_path / "a.csv")
    with pytest.raises(TypeError, match=r"bfloat16.*astype\('float32'\)"):
        save(data.astype("bfloat16"), tmp_path / "a.npz")

    def broken(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(KeyboardInterrupt):
        save(data, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_npz_names_and_dtypes(tmp_path, dtype):
    path = npz(tmp_path / "b.npz", x=X.astype(dtype), y=Y.astype(dtype), z=[None])
    data = load(str(path), inputs="x", targets="y")
    assert (data.dtype, data.name) == (dtype, "b")
    np.testing.assert_array_equal(data.inputs, X)
    whole = npz(tmp_path / "c.npz", inputs=X.astype(int), targets=Y > 0)
    data = load(whole, dtype="float32")
    np.testing.assert_array_equal(data.inputs, X)
    np.testing.assert_array_equal(data.targets, [1, 0, 1])
    swapped = npz(tmp_path / "d.npz", inputs=X.astype(">f8"), targets=Y.astype(">f8"))
    np.testing.assert_array_equal(load(swapped).inputs, X)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "words"),
    [
        (
            {"input": X, "targets": Y},
            {},
            ValueError,
            "no array 'inputs'; there are 'input', 'targets'. Did you mean 'input'",
        ),
        ({"inputs": X}, {}, ValueError, r"no array 'targets'; there are 'inputs'\.$"),
        ({}, {}, ValueError, "there are none"),
        (
            {"inputs": X.astype(int), "targets": Y},
            {},
            TypeError,
            "inputs has dtype int64; expected a floating dtype. Pass dtype='float32'",
        ),
        ({"inputs": X, "targets": Y > 0}, {}, TypeError, "targets has dtype bool"),
        ({"inputs": X + 1j, "targets": Y}, {"dtype": "float32"}, TypeError, "complex"),
        ({"inputs": X.astype(str), "targets": Y}, {}, TypeError, "dtype <U"),
        ({"inputs": X.astype("g"), "targets": Y}, {}, TypeError, "inputs has dtype"),
        (
            {"inputs": np.array([[None]]), "targets": Y[:1]},
            {},
            ValueError,
            "cannot be read as .npz: .*[Oo]bject arrays.*Write it again",
        ),
        (
            {"inputs": X.astype("f4"), "targets": Y},
            {},
            TypeError,
            "inputs has dtype float32 and targets float64; .* Pass dtype='float32'",
        ),
        ({"inputs": X, "targets": Y[:2]}, {}, ValueError, "same number of rows"),
        ({"inputs": X[0], "targets": Y}, {}, ValueError, r"shape \(2,\); expected 2"),
        ({"inputs": X[:0], "targets": Y[:0]}, {}, ValueError, "at least one row"),
        ({"inputs": X / np.nan, "targets": Y}, {}, ValueError, "inputs holds 6 NaN"),
        (
            {"inputs": X * 1e300, "targets": Y},
            {"dtype": "float32"},
            ValueError,
            "inputs holds 5 NaN or infinite",
        ),
        ({"inputs": X, "targets": Y}, {"inputs": ["x"]}, TypeError, "name of one arr"),
        ({"inputs": X, "targets": Y}, {"dtype": int}, TypeError, "dtype is int64"),
    ],
)
def test_npz_refusals(tmp_path, arrays, options, error, words):
    with pytest.raises(error, match=words):
        load(npz(tmp_path / "a.npz", **arrays), **options)


def test_damaged_npz(tmp_path):
    good = npz(tmp_path / "good.npz", inputs=X, targets=Y).read_bytes()
    path = tmp_path / "bad.npz"

    def refused(content, words):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            load(path)

    words = r"bad.npz cannot be read as .npz: .*truncated. Write it again"
    for size in (1, 10, len(good) // 2, len(good) - 1):
        refused(good[:size], words)
    refused(b"", r"bad.npz is empty \(0 bytes\)")
    refused(b"not an archive", words)
    # One bit inside the numbers: the checksum of the archive notices.
    place = good.index(Y.tobytes()) + 3
    refused(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], words)
    # An array whose header promises more numbers than follow.
    short = io.BytesIO()
    np.save(short, X)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inputs.npy", short.getvalue()[:-8])
        file.writestr("targets.npy", short.getvalue())
    refused(archive.getvalue(), words)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inputs", b"plain text")
        file.writestr("targets", b"plain text")
    refused(archive.getvalue(), words)


# ---- which file ---------------------------------------------------------------------


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz does not exist.*Looked in"):
        load(tmp_path / "none.npz")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder.csv is not a file"):
        load(tmp_path / "folder.csv", targets="y")
    for name in ("a.xlsx", "a", "a.npz.gz"):
        with pytest.raises(ValueError, match=r"suffix '.*'; expected .npz or .csv or"):
            load(tmp_path / name)


# ---- csv ----------------------------------------------------------------------------


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_csv(tmp_path, dtype):
    text = '\ufeffa, b ,y,"c,d"\r\n1,2,3,4\r\n\r\n-5e-1, 6,"7",.8\r\n'
    path = write(tmp_path / "t.CSV", text)
    data = load(path, targets="y")
    assert (data.dtype, data.name) == (dtype, "t")
    expected = np.array([[1, 2, 4], [-0.5, 6, 0.8]], dtype)
    np.testing.assert_array_equal(data.inputs, expected)
    np.testing.assert_array_equal(data.targets, [3, 7])
    data = load(path, inputs=["c,d", "a"], targets=["y", "b"], dtype="float32")
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data.inputs, np.float32([[4, 1], [0.8, -0.5]]))
    np.testing.assert_array_equal(data.targets, [[3, 2], [7, 6]])
    assert load(path, inputs="a", targets="y").inputs.shape == (2, 1)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("\n\n", {}, "0 lines; expected a header and at least one row"),
        ("a,y\n", {}, "1 lines; expected a header and at least one row"),
        ("a,y\n1,2\n3\n", {}, "line 3: 1 cells; expected 2, as in the header"),
        ("a,y\n1,2\n\n3,4,5\n", {}, "line 4: 3 cells; expected 2"),
        ("a,y\n1,2\n3,x4\n", {}, "line 3, column 'y': 'x4'; expected a finite number"),
        ('a,y\n"1\n",2\n3,\n', {}, "line 4, column 'y': ''; expected a finite number"),
        ("a,y\nnan,2\n", {}, "line 2, column 'a': 'nan'; expected a finite"),
        ("a,y\n1,-inf\n", {}, "line 2, column 'y': '-inf'"),
        ("a,y\n1_0,2\n", {}, "line 2, column 'a': '1_0'"),
        ("a,y\n1e400,2\n", {}, "line 2, column 'a': '1e400'"),
        ("a,y\n1e39,2\n", {"dtype": "float32"}, r"inputs holds 1 .*infinite"),
        ("a,a,y\n1,2,3\n", {}, "several columns called 'a'"),
        ("1,2,3\n4,5,6\n", {}, "starts with the numbers 1, 2, 3; expected a header"),
        ("a;y\n1;2\n", {}, "one column, called 'a;y'; expected cells separated by com"),
        ('a,y\n1,"2\n', {}, r"cannot be read as .csv: unexpected end of data"),
        (
            "alpha,beta,y\n1,2,3\n",
            {"targets": "bета"},
            "no column 'bета'; there are 'alpha', 'beta', 'y'",
        ),
        (
            "alpha,beta,y\n1,2,3\n",
            {"inputs": ["alpha", "bta"]},
            r"no column 'bta'; there are .*'y'. Did you mean 'beta'\?",
        ),
        ("a,y\n1,2\n", {"targets": None}, "not named; .* Pass for example targets='y'"),
        ("a,y\n1,2\n", {"inputs": []}, r"inputs \[\] and targets \['y'\]"),
        ("y\n1\n", {}, r"inputs \[\] and targets \['y'\]"),
    ],
)
def test_csv_refusals(tmp_path, text, options, words):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=words):
        load(path, **({"targets": "y"} | options))


@pytest.mark.parametrize("columns", [1, [0, 1]])
def test_column_names_are_strings(tmp_path, columns):
    # behind the annotation of `load`, which the suite checks and users need not
    with pytest.raises(TypeError, match="expected a column name or a list"):
        _files._names(tmp_path / "a.csv", columns, "targets")


def test_csv_that_is_not_text(tmp_path):
    path = write(tmp_path / "a.csv", "a,ÿ\n1,2\n", "latin-1")
    with pytest.raises(ValueError, match=r"cannot be read as .csv: 'utf-8' codec"):
        load(path, targets="y")
    path = write(tmp_path / "b.csv", "a,y\n" + "1" * 200_000 + ",2\n")
    with pytest.raises(ValueError, match=r"cannot be read as .csv: field larger"):
        load(path, targets="y")


# ---- parquet ------------------------------------------------------------------------


def parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_parquet(tmp_path, dtype):
    columns = {"a": X[:, 0].astype(dtype), "b": X[:, 1].astype(dtype)}
    path = parquet(tmp_path / "t.parquet", y=Y.astype(dtype), **columns)
    data = load(path, targets="y")
    assert (data.dtype, data.name) == (dtype, "t")
    np.testing.assert_array_equal(data.inputs, X)
    np.testing.assert_array_equal(data.targets, Y)
    data = load(path, inputs=["b"], targets=["y", "a"])
    np.testing.assert_array_equal(data.inputs, X[:, 1:])
    np.testing.assert_array_equal(data.targets, np.stack([Y, X[:, 0]], axis=1))
    mixed = parquet(tmp_path / "m.parquet", a=[1, 2], b=[True, False], y=[0.5, 1.5])
    data = load(mixed, targets="y", dtype="float32")
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data.inputs, [[1, 1], [2, 0]])
    large = parquet(tmp_path / "l.parquet", a=np.array([2**64 - 1], "u8"), y=[-1])
    data = load(large, inputs=["a", "y"], targets="y", dtype="float32")
    np.testing.assert_array_equal(data.inputs, [[2.0**64, -1]])


@pytest.mark.parametrize(
    ("columns", "options", "error", "words"),
    [
        (
            {"a": [1], "y": [1.0]},
            {},
            TypeError,
            "inputs, column 'a', has dtype int64.*Pass dtype=",
        ),
        (
            {"a": [1], "b": np.ones(1, "u8"), "y": [1.0]},
            {},
            TypeError,
            "inputs, column 'a', has dtype int64.*Pass dtype=",
        ),
        (
            {"a": [0.5], "b": [2**53 + 1], "y": [1.0]},
            {},
            TypeError,
            "inputs, column 'b', has dtype int64.*Pass dtype=",
        ),
        (
            {"a": [0.5], "y": [True], "z": [0.5]},
            {"targets": ["z", "y"]},
            TypeError,
            "targets, column 'y', has dtype bool.*Pass dtype=",
        ),
        (
            {"a": ["u"], "y": [1.0]},
            {},
            TypeError,
            "column 'a': type string; expected n",
        ),
        ({"a": [1.0, None], "y": [1.0, 2]}, {}, ValueError, "'a': 1 missing values"),
        ({"a": [1.0, np.nan], "y": [1.0, 2]}, {}, ValueError, "inputs holds 1 NaN"),
        ({"a": np.ones(0), "y": np.ones(0)}, {}, ValueError, "has no rows"),
        ({"a": [1.0], "z": [1.0]}, {}, ValueError, "no column 'y'; there are 'a', 'z'"),
        ({"a": [1.0], "y": [1.0]}, {"targets": None}, ValueError, "were not named"),
        (
            {"a": np.ones(2, "f4"), "y": np.ones(2)},
            {},
            TypeError,
            "inputs has dtype float32 and targets float64",
        ),
    ],
)
def test_parquet_refusals(tmp_path, columns, options, error, words):
    path = parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(error, match=words):
        load(path, **({"targets": "y"} | options))


def test_damaged_parquet(tmp_path):
    good = parquet(tmp_path / "good.parquet", a=np.arange(99.0), y=np.ones(99))
    content = good.read_bytes()
    path = tmp_path / "bad.parquet"
    for bad in (b"PAR1", b"text" * 9, content[: len(content) // 2], content[:-1]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"cannot be read as .parquet: .*Write it"):
            load(path, targets="y")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        load(path, targets="y")


def test_loaded_numbers_are_on_the_device(tmp_path):
    data = load(write(tmp_path / "a.csv", "a,y\n1,2\n"), targets="y")
    assert isinstance(data.inputs, jnp.ndarray)
