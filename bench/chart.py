"""A run's result -> an SVG chart of CPU per request, readable on light and dark pages.

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
