"""A run's result -> SVG charts of CPU per request, readable on light and dark pages.

Pure: takes values, gives text.
"""

from html import escape

COLOURS = {"ringway": "#d9480f", "nginx": "#2b8a3e", "haproxy": "#1c7ed6", "relay": "#868e96", "envoy": "#9c36b5"}
OTHER = "#f08c00"
BAR, GAP, LEFT, WIDTH, LABEL = 13, 16, 168, 760, 92


def chart(result):
    """Horizontal bars, grouped by workload; each group has a scale of its own, as the workloads differ by a factor of 50."""
    parts, y = [], 34
    for name, workload in result["workloads"].items():
        bars = [(who, s["cpu_us"]) for who, s in workload["contenders"].items() if not s["problems"]]
        if not bars:
            continue
        most = max(value for _, value in bars)
        parts.append(f'<text x="8" y="{y + 10}" class="w">{escape(name)}</text>')
        for who, value in bars:
            length = (WIDTH - LEFT - LABEL) * value / most
            colour = COLOURS.get(who, OTHER)
            parts.append(f'<text x="{LEFT - 8}" y="{y + 10}" class="c" text-anchor="end">{escape(who)}</text>'
                         f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" rx="2" fill="{colour}"/>'
                         f'<text x="{LEFT + length + 6:.1f}" y="{y + 10}" class="c">{value:.1f} us</text>')
            y += BAR + 2
        y += GAP
    style = ("text{font-family:sans-serif;font-size:11px;fill:#495057}.w{font-weight:bold;font-size:12px}"
             "@media(prefers-color-scheme:dark){text{fill:#ced4da}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"><style>{style}</style>'
            f'<text x="8" y="18" class="w">CPU per request, microseconds (less is better; each workload to its own scale)</text>'
            + "".join(parts) + "</svg>\n")


PANEL, PANEL_HEIGHT, MARGIN = 380, 170, 46


def curves_chart(curves):
    """CPU per request over one axis each, in small panels; `curves`: (title, axis, points with `at` and `cpu_us`). Points stand at
    equal distances, in their order; each panel has a scale of its own that begins at nothing."""
    parts = []
    for number, (title, axis, points) in enumerate(curves):
        left, top = 8 + PANEL * (number % 2), 34 + PANEL_HEIGHT * (number // 2)
        most = max((point["cpu_us"] for point in points), default=1) or 1
        width, height = PANEL - 2 * MARGIN, PANEL_HEIGHT - 70
        places = [(left + MARGIN + width * (index + 0.5) / len(points), top + 24 + height * (1 - point["cpu_us"] / most))
                  for index, point in enumerate(points)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        short = title if len(title) < 52 else title[:50] + "..."
        parts.append(f'<text x="{left}" y="{top}" class="w">{escape(short)}</text>'
                     f'<line x1="{left + MARGIN}" y1="{top + 24 + height}" x2="{left + MARGIN + width}" y2="{top + 24 + height}" stroke="#868e96"/>'
                     f'<polyline points="{line}" fill="none" stroke="{COLOURS["ringway"]}" stroke-width="2"/>'
                     f'<text x="{left + MARGIN + width / 2}" y="{top + height + 54}" text-anchor="middle">{escape(axis)}</text>')
        for (x, y), point in zip(places, points):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS["ringway"]}"/>'
                         f'<text x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">{point["cpu_us"]:.1f}</text>'
                         f'<text x="{x:.1f}" y="{top + height + 39}" text-anchor="middle">{point["at"]}</text>')
    height = 34 + PANEL_HEIGHT * ((len(curves) + 1) // 2)
    width = 2 * PANEL
    style = ("text{font-family:sans-serif;font-size:11px;fill:#495057}.w{font-weight:bold;font-size:12px}"
             "@media(prefers-color-scheme:dark){text{fill:#ced4da}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"><style>{style}</style>'
            f'<text x="8" y="16" class="w">CPU per request, microseconds</text>' + "".join(parts) + "</svg>\n")
