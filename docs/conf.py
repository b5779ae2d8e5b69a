"""How Sphinx builds the documentation."""

import os

os.environ["UNHANG_PURE"] = "1"  # the plain classes have their docstrings and annotations in one place

import unhang

project = "unhang"
author = "the unhang authors"
copyright = "2026, the unhang authors"  # noqa: A001 - Sphinx's name for it
release = unhang.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "unhang"
html_extra_path = ["report-schema.json"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
suppress_warnings = ["myst.xref_missing"]
myst_heading_anchors = 3
