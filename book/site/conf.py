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
nb_number_source_lines = False
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}
bibtex_bibfiles = ["references.bib"]

# The library's reference: what a chapter calls leads there, and back
default_role = "py:obj"  # single backquotes in docstrings
autosummary_ignore_module_all = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]
add_module_names = False
python_maximum_signature_line_length = 88
codeautolink_autodoc_inject = True
codeautolink_warn_on_missing_inventory = False

# The look
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_search_summary = False  # a page opened from a folder may not read the others
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
