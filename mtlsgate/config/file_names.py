"""
Text that is not the name of a file, or not a certificate, and how one can tell.

Each function says what is wrong and what to write, in words that follow the
attribute's name.  None of them looks at the disk.
"""

from __future__ import annotations

import re

from mtlsgate.certificates.token import is_token_uri

_PEM = re.compile(r"-----BEGIN ")
_BASE64 = re.compile(r"\s*M[A-Za-z0-9+/\s]{50,}=*\s*")
_FINGERPRINT = re.compile(r"(?:(?i:sha-?256)[:/= ]*)?(?:[0-9A-Fa-f]{2}:?){32}")
_ENDING = re.compile(r"[^\n]{1,255}\.(?:pem|crt|cer|cert|der|key|p12|pfx|p7b|p7c|crl)", re.I)
_SHELL = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


def wrong_file_name(text: str, inline: str | None = None) -> str | None:
    """
    :param inline: the attribute that takes what is in a file, if there is one.
    :returns: what is wrong with the name of a file, or None.
    """
    if _PEM.search(text) or _BASE64.fullmatch(text):
        remedy = "name a file" if inline is None else f"write {inline}"
        return f"this is not the name of a file, but what is in one: {remedy}"
    if _FINGERPRINT.fullmatch(text):
        return _FINGERPRINT_REMEDY
    if is_token_uri(text):
        return _TOKEN if inline == _TAKES_TOKENS else _NO_TOKEN
    if text.startswith("~"):
        return 'the "~" of a shell is not expanded: write "${env.HOME}/…"'
    if found := _SHELL.search(text):
        return f"${found[1]} is not expanded: write ${{env.{found[1]}}}"
    if text.startswith("file:"):
        return "a file is named by its path alone: remove what is up to the path"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return "this is a URL, and the gate reads files: download it, and name the file"
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return 'this is a path of Windows: write one of this machine, with "/"'
    return None


def wrong_material(text: str, file: str) -> str | None:
    """
    :param file: the attribute that takes the name of a file.
    :returns: what is wrong with a certificate or key that is given inline, or None.
    """
    if _PEM.search(text):
        if "\\n" in text:
            return (
                r"the line ends of this PEM are written as \n, a backslash and an n:"
                r' put replace(…, "\\n", "\n") around it'
            )
        return None
    if _FINGERPRINT.fullmatch(text.strip()):
        return _FINGERPRINT_REMEDY
    if is_token_uri(text):
        return None if file == f"{_TAKES_TOKENS}_file" else _NO_TOKEN
    if text.startswith(("/", "./", "../", "~")) or _ENDING.fullmatch(text):
        return f"this is the name of a file, not what is in it: write {file}"
    if re.match(r"(?i)(?:https?|file)://", text):
        return f"this is a URL: download the file, and write {file}"
    return None


#: The one attribute that a key in a token fits.
_TAKES_TOKENS = "private_key"
_TOKEN = f"this is the URI of a key in a token, not the name of a file: write {_TAKES_TOKENS}"
_NO_TOKEN = (
    f"this is the URI of something in a token, and only {_TAKES_TOKENS} of a server_certificate"
    " takes one: name a file"
)
_FINGERPRINT_REMEDY = (
    "this is a fingerprint, not a certificate: write it in the rule of its CA, as"
    " allow { sha256 = […] }"
)
