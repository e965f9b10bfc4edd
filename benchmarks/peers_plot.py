"""
The plot of `peers.py`: an SVG of small bar charts, side by side.

It brings its own background, light or dark as the reader's system prefers, so
that it can be read on any page.  No figure is told by colour alone.
"""

from html import escape

from peers_report import MINE, figure

_WIDTH, _MARGIN, _COLUMNS, _GAP = 860, 20, 2, 30
_TITLE, _BAR, _PITCH, _LABEL, _VALUE = 34, 14, 20, 92, 62
_TOP = 58

_STYLE = """\
  text { font-family: "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; font-size: 12px; }
  text { fill: #1f2430; }
  .head { font-size: 16px; font-weight: 600; }
  .title { font-size: 13px; font-weight: 600; }
  .faint { font-size: 11px; fill: #5b6472; }
  .mine { font-weight: 600; }
  .paper { fill: #ffffff; }
  .gate { fill: #1766a6; }
  .peer { fill: #7f8b9a; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8ebf0; }
    .faint { fill: #a3adba; }
    .paper { fill: #16191f; }
    .gate { fill: #5db0f0; }
    .peer { fill: #727e8e; }
  }
"""


def svg(title, subtitle, panels):
    """Return the text of an image of all the panels."""
    width = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
    parts, top = [], _TOP + _MARGIN
    for begin in range(0, len(panels), _COLUMNS):
        row = panels[begin : begin + _COLUMNS]
        for column, panel in enumerate(row):
            parts += _panel(panel, _MARGIN + column * (width + _GAP), top, width)
        top += max(map(_height, row)) + _GAP / 2
    height = round(top + _MARGIN / 2)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(_described(panels))}</desc>',
            f"<style>\n{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="8"/>',
            _text(_MARGIN, _MARGIN + 14, title, "head"),
            _text(_MARGIN, _MARGIN + 33, subtitle, "faint"),
            *parts,
            "</svg>\n",
        ]
    )


def _height(panel):
    return _TITLE + _PITCH * len(panel.bars)


def _panel(panel, left, top, width):
    yield _text(left, top + 16, panel.title, "title")
    yield _text(left + width, top + 16, panel.better, "faint", "end")
    room = width - _LABEL - _VALUE
    scale = room / max(panel.bars.values())
    for place, (name, value) in enumerate(panel.bars.items()):
        y = top + _TITLE + place * _PITCH
        mine = name in MINE
        length = max(1.0, value * scale)
        base = y + _BAR - 3
        weight = "mine" if mine else ""
        yield _text(left + _LABEL - 8, base, name, weight, "end")
        kind = "gate" if mine else "peer"
        yield (
            f'<rect class="{kind}" x="{left + _LABEL:.1f}" y="{y}" '
            f'width="{length:.1f}" height="{_BAR}" rx="2"/>'
        )
        yield _text(left + _LABEL + length + 6, base, figure(value), weight)


def _text(x, y, text, kind, anchor="start"):
    words = f' class="{kind}"' if kind else ""
    end = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{words}{end}>{escape(text)}</text>'


def _described(panels):
    return ". ".join(
        f"{panel.title}: "
        + ", ".join(f"{name} {figure(value)}" for name, value in panel.bars.items())
        for panel in panels
    )
