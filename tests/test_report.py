"""Numbers, tables and pages: right, escaped, self-contained."""

import base64
import io
import math
import re
from fractions import Fraction
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import pytest
from hypothesis import example, given, settings, strategies as st

from jaxrelu import RESULTS, Estimate, report


def read(text):
    """The exact value of a number as written, and of one unit of its last digit."""
    text = text.replace("\u202f", "").replace("−", "-")
    mantissa, _, power = text.partition("·10^{")
    scale = Fraction(10) ** int(power.rstrip("}") or 0)
    places = len(mantissa.partition(".")[2])
    return Fraction(mantissa) * scale, scale / 10**places


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.floats(1e-30, 1e30).flatmap(lambda x: st.sampled_from([x, -x])),
    st.integers(1, 8),
)
@example(9.9999999, 3)
@example(999999.9, 4)
@example(1e-4, 2)
@example(123456789.0, 4)
def test_number_is_rounded_correctly(x, digits):
    value, unit = read(report.number(x, digits=digits))
    exact = Fraction(x)
    assert abs(value - exact) <= max(unit / 2, abs(exact) * Fraction(1, 10**14))
    assert abs(value - exact) <= abs(exact) * Fraction(1, 2 * 10 ** (digits - 1))


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (11.61478123, 0.02, "11.61 ± 0.02"),
        (11.61478123, 0.5, "11.6 ± 0.5"),
        (2.0, 3.0, "2 ± 3"),
        (5e-324, None, "4.941·10^{−324}"),
        (0.05, 2.0, "0.05 ± 2"),
        (1.0, 0.0, "1.000 ± 0"),
        (1.25e-7, 1e-9, "1.25·10^{−7} ± 1·10^{−9}"),
        (math.pi, 1e-13, "3.14159 ± 1·10^{−13}"),
        (1.5, math.inf, "1.500 ± ∞"),
        (12345.0, None, "12\u202f345"),
        (0.0, None, "0"),
        (-2.5, None, "−2.500"),
        (math.nan, None, "nan"),
        (-math.inf, None, "−∞"),
    ],
)
def test_numbers_as_people_read_them(value, error, written):
    assert report.number(value, error) == written


def test_estimate():
    x = Estimate(jnp.asarray(2.5), jnp.asarray(0.01), RESULTS.successful, "exact", "m")
    assert report.estimate(x) == "2.50 ± 0.01"


TABLE = report.Table(
    ("φ", "σ_{min}", "words"),
    [("ReLU", "1.25", "a **b**"), ("x < y & z", "10.5·10^{−3}", "`c_{d}`")],
    "A caption with λ_{max}.",
)


def test_table_text_is_aligned():
    lines = TABLE.text().splitlines()
    assert lines[:2] == ["A caption with λ_max.", ""]
    head, rule, first, second = lines[2:]
    assert head.split() == ["φ", "σ_min", "words"]
    end = len("x < y & z") + 2 + len("10.5·10^−3")
    assert first[:end].endswith(" 1.25")
    assert second[:end].endswith("10.5·10^−3")
    assert first[end + 2 :] == "a b"
    assert second[end + 2 :] == "c_d"
    assert rule.replace("─", "").strip() == ""


def test_long_captions_are_wrapped():
    table = report.Table(("a",), [("1",)], "word " * 100)
    assert max(map(len, table.text().splitlines())) <= 88


def test_empty_table():
    table = report.Table(("a", "b"), [])
    assert table.text().splitlines()[1].split() == ["a", "b"]
    assert "<tbody></tbody>" in report.page("t", [table])


def test_ragged_table_is_refused():
    with pytest.raises(ValueError, match="row 1 has 1 entries; expected 2"):
        report.Table(("a", "b"), [("1", "2"), ("3",)])


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZF"
    "QAAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Collects text by element, checks nesting, and every address referred to."""

    VOID = ("meta", "img")

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.addresses = [], {}, []
        self.classes = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[k] for k in ("src", "href", "srcset") if k in attrs]
        if tag == "td":
            self.classes.append(attrs.get("class"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag] = self.texts.get(tag, "") + data


HOSTILE = "</code><script>alert('x')</script> & \"q\""


def everything():
    return report.page(
        "Title " + HOSTILE,
        [
            report.Heading("H " + HOSTILE),
            report.Text("T " + HOSTILE + " `a_{b}` σ_{min} k^{2} **c**"),
            TABLE,
            report.Table(("a",), [(HOSTILE,)], HOSTILE),
            report.Picture(PNG, "P " + HOSTILE, 'alt "' + HOSTILE),
            report.Code("x = 1 < 2  # " + HOSTILE),
        ],
        lead="lead " + HOSTILE,
        record={"key": HOSTILE},
    )


def test_page_is_well_formed_and_escaped():
    page = everything()
    reader = Reader(page)
    assert "script" not in reader.texts
    for tag in ("h1", "h2", "p", "td", "pre", "dd", "figcaption", "title"):
        assert HOSTILE in reader.texts[tag], tag
    assert "x = 1 < 2" in reader.texts["pre"]


def test_page_refers_to_nothing_outside():
    page = everything()
    (address,) = Reader(page).addresses
    assert base64.b64decode(address.removeprefix("data:image/png;base64,")) == PNG
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", style)


def test_inline_marks():
    reader = Reader(
        report.page("t", [report.Text("`a_{b}` σ_{min} k^{2} **c** 2 * 3")])
    )
    assert reader.texts["code"] == "a_{b}"
    assert (reader.texts["sub"], reader.texts["sup"]) == ("min", "2")
    assert reader.texts["strong"] == "c"
    assert report.plain("`a` σ_{min} k^{2} **c** 2 * 3") == "a σ_min k^2 c 2 * 3"


def test_numeric_columns_are_marked():
    assert Reader(report.page("t", [TABLE])).classes == [None, "n", None] * 2


def test_figures_and_tables_are_numbered_apart():
    picture = report.Picture(PNG, "c", "a")
    page = report.page("t", [picture, TABLE, picture, TABLE])
    numbered = re.findall(r"<b>(\w+ \d)\.</b>", page)
    assert numbered == ["Figure 1", "Table 1", "Figure 2", "Table 2"]


def test_unknown_blocks_are_refused():
    with pytest.raises(TypeError, match="got a str; expected a Heading"):
        report.page("t", ["text"])


def test_write_replaces_whole_files(tmp_path):
    path = tmp_path / "new" / "page.html"
    assert report.write(path, "é") == path
    assert path.read_bytes() == "é".encode()
    report.write(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    with pytest.raises(UnicodeEncodeError):
        report.write(path, "\ud800")
    assert path.read_bytes() == b"\x00"
    (path.parent / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        report.write(path.parent / "folder", "x")
    (path.parent / "folder").rmdir()
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_provenance_states_precision_and_versions(dtype):
    record = report.provenance(random_key="0", steps=3)
    assert list(record)[:2] == ["random key", "steps"]
    assert record["dtype"] == dtype.name
    assert record["platform"] == jax.default_backend()
    assert f"jax {jax.__version__}" in record["versions"]
    assert "not installed" not in record["versions"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", record["date"])


def test_progress_lines():
    stream = io.StringIO()
    say = report.Progress(stream)
    say("a_{b}")
    say("c")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\[ +\d+\.\d s\] a_b", first)
    assert second.endswith("] c")
    assert say.seconds() >= 0


def test_progress_goes_to_standard_output(capsys):
    report.Progress()("here")
    assert capsys.readouterr().out.endswith("] here\n")
