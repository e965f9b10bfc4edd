"""How Sphinx builds these pages: ``sphinx-build -W -n -b html docs docs/_build/html``."""

from importlib.metadata import version as version_of
from typing import ClassVar

from pygments.lexer import RegexLexer, include
from pygments.token import (
    Comment,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Whitespace,
)
from sphinx.application import Sphinx

project = "mtlsgate"
author = "The mtlsgate authors"
project_copyright = "2026, The mtlsgate authors"
release = version = version_of("mtlsgate")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build", "examples"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# No other project's inventory is fetched, so references into them stay text.
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"mtlsgate {release}"


class HclLexer(RegexLexer):
    """The gate's configuration language; Pygments' own is for Terraform's blocks."""

    name = "HCL"
    tokens: ClassVar = {
        "root": [
            (r"\s+", Whitespace),
            (r"(#|//).*", Comment.Single),
            (r"(?s)/\*.*?\*/", Comment.Multiline),
            (r"\b(true|false|null)\b", Keyword.Constant),
            (r"[A-Za-z_][\w-]*(?=\s*=)", Name.Attribute),
            (r"[A-Za-z_][\w-]*(?=\()", Name.Function),
            (r"[A-Za-z_][\w-]*", Name.Tag),
            (r"-?\d+(\.\d+)?", Number),
            (r'"', String, "string"),
            (r"[=.]", Operator),
            (r"[{}\[\](),…]", Punctuation),
        ],
        "string": [
            (r'"', String, "#pop"),
            (r"\$\{", String.Interpol, "interpolation"),
            (r'(\\.|\$(?!\{)|[^"\\$])+', String),
        ],
        "interpolation": [(r"\}", String.Interpol, "#pop"), include("root")],
    }


class ConsoleLexer(RegexLexer):
    """Commands after ``$``, and what they print, as it is: it is no program."""

    name = "Console"
    tokens: ClassVar = {
        "root": [
            (r"^\$ ", Generic.Prompt),
            (r"(?<=^\$ ).+", Keyword),
            (r".+", Generic.Output),
            (r"\n", Whitespace),
        ],
    }


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("hcl", HclLexer)
    app.add_lexer("console", ConsoleLexer)
