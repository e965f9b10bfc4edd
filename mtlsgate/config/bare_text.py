"""
What to say of text that stands without quotes where a value should be.
"""

from __future__ import annotations

import re

from mtlsgate.text import looks_secret, quoted

_BARE = re.compile(r"[\w./:~@$*\\+-]+")
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_ARITHMETIC = re.compile(rf"[-+*/]*{_NUMBER}(?:[-+*/]+{_NUMBER})*")
#: What the expressions know more of: a name, a literal, a path of names.
_NAME = re.compile(r"[-]*[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")


def without_quotes(line: str) -> str | None:
    """
    :param line: from the beginning of a value to the end of its line.
    :returns: what is wrong with it, if it is text without quotes.
    """
    found = _BARE.match(line)
    if found is None or line.startswith(("env.", "peer.", "//")):
        return None
    text, rest = found.group(), line[found.end() :].strip()
    semicolon = rest.startswith(";")
    if rest.removeprefix(";").lstrip() and not rest.removeprefix(";").lstrip().startswith(
        ("#", "//")
    ):
        return None
    if _ARITHMETIC.fullmatch(text) or (not semicolon and _NAME.fullmatch(text)):
        return None
    remedy = 'put text in "quotes"' if looks_secret(text) else f"put text in quotes: {quoted(text)}"
    nginx = ' (and there is no ";" in HCL)' if semicolon else ""
    return f"this is not a value; {remedy}{nginx}"


def unknown_name(name: str, written: str) -> str:
    """
    :param name: a name that is no variable.
    :param written: the name, and the steps into it.
    :returns: what is wrong with it as a value.
    """
    if name == "env":
        return 'env stands for all variables; name one, as env.NAME or env["NAME"]'
    if name == "peer":
        return "peer stands for the client; name an attribute, as peer.common_name"
    if name.lower() in ("yes", "no", "on", "off", "true", "false"):
        return "this is not a value; write true or false"
    if name.lower() in ("nil", "none", "undefined"):
        return "this is not a value; write null, or remove the attribute"
    if looks_secret(written) or "\n" in written or len(written) > 60:
        return 'a bare name is not a value; put text in "quotes"'
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", written):
        return f"there is no {written}; an environment variable is written env.{written}"
    if name in ("var", "local", "request", "backend_responses", "couper"):
        return f"there is no {name} here; what a value may depend on is env.NAME"
    if re.fullmatch(r"[\w.-]+", written):
        return f"a bare name is not a value; put text in quotes: {quoted(written)}"
    return 'a bare name is not a value; put text in "quotes"'
