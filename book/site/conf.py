"""Sphinx settings of the web book, which `make site` builds from copies that were executed before.

Nothing on a page is fetched from elsewhere: MathJax lies beside it, and no widget is loaded.
"""

project = "Feature fusion and distillation for urban sounds"
author = "The fusionkd authors"
html_title = "Urban sounds: fusion and distillation"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.mathjax",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

# Chapters
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they come from a server
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables and mathematics in outputs
nb_number_source_lines = False
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"

# The library's reference: what a chapter calls leads there, and back
default_role = "py:obj"  # single backquotes in docstrings
autosummary_ignore_module_all = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "no-value": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source", "Sources"]
add_module_names = False
python_maximum_signature_line_length = 88
codeautolink_autodoc_inject = True
codeautolink_warn_on_missing_inventory = False

# The look
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_search_summary = False  # a page opened from a folder may not read the others
html_copy_source = False
html_show_sphinx = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader has it
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def source_as_section(app, what, name, obj, options, lines):
    """Give a docstring's paragraph "Source: ..." a heading, or it ends up among the parameters."""
    for at, line in reversed(list(enumerate(lines))):
        word, _, text = line.partition(": ")
        if word in ("Source", "Sources") and text:
            lines[at : at + 1] = [word, "-" * len(word), text]


def short_signature(app, what, name, obj, options, signature, returns):
    """Drop the signature of a pydantic model, which is its fields again with all their checks."""
    return ("", None) if hasattr(obj, "model_fields") else (signature, returns)


def setup(app):
    """Let both see docstrings; the first before napoleon does."""
    app.connect("autodoc-process-docstring", source_as_section, priority=400)
    app.connect("autodoc-process-signature", short_signature)
