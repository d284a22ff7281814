"""The chart for the README: CPU time beside nginx's, one bar a proxy, as a plain SVG."""

from goals import ratio

# Work, figure, what it is called.
BARS = (
    ("small", "cpu_us", "small GET, 64 connections"),
    ("down-16k", "cpu_us_per_mib", "16 KiB responses"),
    ("down-1m", "cpu_us_per_mib", "1 MiB responses"),
    ("up-1m", "cpu_us_per_mib", "1 MiB uploads"),
    ("tls", "cpu_us", "TLS to the upstream"),
    ("h2", "cpu_us", "HTTP/2 in, HTTP/1.1 out"),
)
COLOURS = {
    "bearerd": "#2f6fde",
    "nginx": "#8a8f98",
    "haproxy": "#b3a06b",
    "envoy": "#b07aa1",
    "tcp-relay": "#c9ccd1",
}
WIDTH, LEFT, BAR, GAP = 760, 200, 13, 12
# Longer bars are cut, and say how long they are.
MOST = 2.5
TEXT = 'font-family="system-ui, sans-serif" font-size="12" fill="#6b7280"'


def draw(results: dict) -> str:
    """Of those works that were measured."""
    works = [(title, ratios(results[key], figure)) for key, figure, title in BARS if key in results]
    scale = (WIDTH - LEFT - 60) / MOST
    parts, y = [], 50
    for title, found in works:
        middle = y + len(found) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end" {TEXT}>{title}</text>')
        for name, value in found.items():
            parts += bar(name, value, y, scale)
            y += BAR
        y += GAP
    one = LEFT + scale
    rule = f'<line x1="{one:.0f}" y1="40" x2="{one:.0f}" y2="{y - GAP}" stroke="#6b7280" stroke-dasharray="3 3"/>'
    return "\n".join([head(y), legend(), *parts, rule, "</svg>"]) + "\n"


def ratios(result: dict, figure: str) -> dict:
    found = {name: ratio(result["rounds"], name, "nginx", figure) for name in COLOURS}
    return {name: value for name, value in found.items() if value}


def bar(name: str, value: float, y: int, scale: float) -> list[str]:
    length = min(value, MOST) * scale
    cut = " ⟶" if value > MOST else ""
    return [
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>',
        f'<text x="{LEFT + length + 5:.1f}" y="{y + BAR - 3}" {TEXT}>{value:.2f}{cut}</text>',
    ]


def legend() -> str:
    parts, x = [f'<text x="10" y="24" {TEXT}>CPU time, nginx = 1</text>'], LEFT
    for name, colour in COLOURS.items():
        parts.append(f'<rect x="{x}" y="14" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="24" {TEXT}>{name}</text>')
        x += 100
    return "\n".join(parts)


def head(height: int) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
