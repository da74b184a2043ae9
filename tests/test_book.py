"""What the chapters show and say: figures that can be read, numbers that come from somewhere."""

import ast
import re

import pytest

from fusionkd_book import figures, publish
from fusionkd_lib import tables
from fusionkd_lib.engine import notebooks

PHONE = 360  # pixels
LETTERS = {"appendix_reading_the_paper": "P", "appendix_speed": "S"}
ONE_PAGE = "appendix_one_page"


CHAPTERS = publish.chapters()


def code_of(name: str) -> list[str]:
    return [cell.source for cell in notebooks.read(name).cells if cell.cell_type == "code"]


def text_of(name: str) -> list[str]:
    return [cell.source for cell in notebooks.read(name).cells if cell.cell_type == "markdown"]


def calls(source: str, function: str) -> list[ast.Call]:
    """Return the calls of ``figures.function`` in a cell, in their order."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"figures.{function}"
    ]


def typed(node: ast.expr) -> str:
    """Return what is typed of a string, ``{}`` where a value of the run is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(typed(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "{}"


def shown(name: str) -> list[dict[str, str]]:
    """Return the text of each figure of a chapter: alt, caption."""
    found = [call for source in code_of(name) for call in calls(source, "show")]
    return [{word.arg: typed(word.value) for word in call.keywords} for call in found]


# Figures


def number(name: str, index: int) -> str:
    return f"{LETTERS.get(name) or int(name[:2])}.{index}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_count_up_and_each_says_what_it_shows_to_those_who_see_it_and_who_do_not(name):
    found = shown(name)
    captions = [re.fullmatch(r"\*\*Figure (\S+)\.\*\* (.+)", told["caption"]) for told in found]
    assert all(captions), found
    assert [told[1] for told in captions] == [number(name, i) for i in range(1, len(found) + 1)]
    for told, caption in zip(found, captions, strict=True):
        assert len(told["alt"]) > 15
        assert told["alt"] != caption[2]
    assert found or name == ONE_PAGE


@pytest.mark.parametrize("name", CHAPTERS)
def test_what_a_chapter_draws_it_shows_in_the_same_cell(name):
    draws = r"plt\.subplots|figures\.(table_figure|framework|opinions|spectrogram_grid|confusion)\("
    silent = [source for source in code_of(name) if re.search(draws, source)]
    assert [source for source in silent if not calls(source, "show")] == []


def test_a_number_in_the_text_is_that_of_a_figure():
    there, told = set(), []
    for name in publish.chapters():
        there |= {number(name, i) for i in range(1, len(shown(name)) + 1)}
        told += re.findall(r"Figures? ([0-9PS]\.\d+)", "\n".join(text_of(name)))
    assert len(told) >= 5
    assert set(told) <= there


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_spectrogram_has_a_scale_in_decibels(name):
    for source in code_of(name):
        if re.search(r"show_spectrogram\(|figures\.PICTURE", source):
            assert calls(source, "decibel_scale"), source


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_figure_is_wider_than_a_phone_can_show(name):
    for source in code_of(name):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg == "figsize":
                width = ast.unparse(node.value.elts[0])
                assert width == "figures.WIDTH" or float(width) <= figures.WIDTH, width


def test_type_is_eight_pixels_high_where_the_widest_figure_fills_a_phone():
    figures.use_style()
    points = min(figures.plt.rcParams[f"{part}.labelsize"] for part in ("xtick", "ytick", "axes"))
    assert points / 72 * PHONE / figures.WIDTH >= 8


# Numbers: every share, every number of points and every decimal that is typed is the paper's, or
# is part of a definition. What a run brought about is put in by the run.

TYPED = re.compile(
    r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?=\s*%)|(?<![\w.])\d[\d,]*\.\d+|[^\s(]+(?=\s+points?\b)"
    r"|\b(?:one|two|three|four|five|nine) in (?:two|three|four|five|nine|ten)\b"
)
THE_PAPERS = {
    "44.1": "IV-B, the sampling rate in kHz",
    "0.01": "IV-D, the learning rate, and the last value of lambda",
}
# Those of its tables, which may be cited where a table is named.
OF_ITS_TABLES = {
    str(value) for pairs in tables.PAPER.values() for values in pairs.values() for value in values
}
DEFINITIONS = {
    "01_sounds_and_labels": {
        "`FUSIONKD_DATA`": "it points at a folder",
        "lost": "points are named, and not how many",
    },
    "02_three_ways_to_look": {
        "1.019": "Slaney's bandwidth of a gammatone, in ERB",
        "24.7": "Glasberg and Moore's ERB, in Hz",
        "9.26": "Glasberg and Moore's quality of the ear",
        "loudest": "a point of a spectrogram",
    },
    "03_branch_pretraining": {
        "0.7": "a score of the worked example above the figure",
        "the": "those of a curve",
        "each": "of that curve",
        "0.25": "a setting of exercise 4",
        "0.003": "a setting of exercise 4",
    },
    "04_fusion_and_distillation": {"0.0": "lambda of the control"},
    "05_the_tables": {
        "in": "points that a sentence has, and not how many",
        "3": "half a width, in exercise 2",
        "1.5": "half of that",
        "0.0": "lambda of the control",
    },
    "06_what_distillation_brings": {
        "many": "a question",
        "1.5": "what the protocol calls worth having, in points",
        "0.05": "the level of a test",
        "2": "a gain in exercise 2",
    },
    "07_on_a_device": {
        "zero": "a zero point is a number of quantisation",
        "**zero": "the same",
        "0.001": "a quantile in exercise 4",
        "0.999": "a quantile in exercise 4",
    },
    "08_your_own_data": {
        "some": "a point in time",
        "25": "chance, of four classes",
        "95": "the level of an interval",
        "1.96": "the normal deviate of that level",
        "80": "an accuracy that one expects, in an example and in exercise 2",
        "5": "half a width, in exercise 2",
    },
    "appendix_one_page": {"0.0": "lambda of the control"},
    "appendix_reading_the_paper": {
        "75.0": "74.98 rounded",
        "a": "a tenth of one, by which 74.9 and 75.0 differ",
        "the": "what matters",
        "arrows": "they point to the left",
    },
    "appendix_speed": {"95": "the level of an interval"},
}


def typed_in(name: str) -> list[tuple[str, str]]:
    """Return the numbers typed in a chapter's text and captions, each with that text."""
    texts = text_of(name) + [text for told in shown(name) for text in told.values()]
    texts = [re.sub(r"Figure \S\.\d+", "", text) for text in texts]
    return [(found, text) for text in texts for found in TYPED.findall(text)]


def without_source(name: str) -> list[tuple[str, str]]:
    """Return the typed numbers that nothing stands behind, each with its text."""
    known = THE_PAPERS.keys() | DEFINITIONS.get(name, {}).keys()
    return [
        (found, text)
        for found, text in typed_in(name)
        if found not in known and not (found in OF_ITS_TABLES and "Table I" in text)
    ]


def test_shares_points_and_decimals_are_found():
    text = "By 3.5 it is 12 %, ten points less: 1,234.5 of v1.2 in III-A, nine in ten. {} %"
    assert TYPED.findall(text) == ["3.5", "12", "ten", "1,234.5", "nine in ten"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_number_that_is_typed_is_the_papers_or_a_definition(name):
    assert without_source(name) == []


def test_no_definition_is_listed_that_no_chapter_needs():
    for name, known in DEFINITIONS.items():
        assert known.keys() - {found for found, _ in typed_in(name)} == set(), name
