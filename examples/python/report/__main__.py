"""`python -m report FILE.csv`: prints the mean and the extremes of each column."""
import csv
import statistics
import sys
from pathlib import Path

from jinja2 import Environment
from tabulate import tabulate

HTML = Environment(autoescape=True, trim_blocks=True).from_string(
    """<table>
{% for row in rows %}
<tr><th>{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>"""
)


def summary(path: Path) -> list[tuple[str, float, float, float]]:
    """One row a column: its name, least, mean and greatest value."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
    return [(name, min(values), statistics.mean(values), max(values)) for name, values in columns.items()]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m report FILE.csv", file=sys.stderr)
        return 2
    rows = summary(Path(sys.argv[1]))
    print(tabulate(rows, headers=["column", "least", "mean", "greatest"], floatfmt=".2f"))
    print(HTML.render(rows=[(name, *(f"{value:.2f}" for value in values)) for name, *values in rows]))
    return 0


sys.exit(main())
