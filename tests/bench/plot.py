"""Draws how Kiln grows as SVG, and says by how much. Pure: numbers in, text out."""
import math
import statistics

PHASES = ("cold", "noop", "edit")
COLOURS = {"cold": "#1f6feb", "noop": "#2da44e", "edit": "#cf222e"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 90, 40, 50
# The targets for memory: this much, and for each file beyond so many some bytes more.
MOST_MEMORY_MIB, FREE_FILES, MOST_BYTES_A_FILE = 100, 40_000, 200
UNITS = {"files": ("files of 1 KB", 1e6, "µs a file"), "mebibytes": ("MiB", 1e3 * 1024, "ms a GiB")}


def series(document, phase, key):
    """(size, median) for every size that was measured, smallest first."""
    of = {}
    for row in document["results"]:
        if row["phase"] == phase and row.get(key) is not None:
            of.setdefault(row["size"], []).append(row[key])
    return [(size, statistics.median(values)) for size, values in sorted(of.items())]


def slope(points):
    """Least squares: what one more costs, and what the first costs."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    rise = sum((a - x) * (b - y) for a, b in points) / (sum((a - x) ** 2 for a in xs) or 1)
    return rise, y - rise * x


def growth(document):
    """For each phase: seconds for each unit by least squares, the same between the two largest sizes, and the exponent of
    the growth between the two largest (1 is linear)."""
    found = {}
    for phase in PHASES:
        points = series(document, phase, "wall_seconds")
        if len(points) > 1:
            (x0, y0), (x1, y1) = points[-2:]
            found[phase] = (slope(points)[0], (y1 - y0) / (x1 - x0), math.log(y1 / y0) / math.log(x1 / x0))
    return found


def bytes_per_file(document):
    """For each phase: bytes of memory for each file beyond 40,000, from there to the largest size. None where not measured."""
    found = {}
    for phase in PHASES:
        points = dict(series(document, phase, "peak_memory_bytes"))
        if FREE_FILES in points and max(points) > FREE_FILES:
            found[phase] = (points[max(points)] - points[FREE_FILES]) / (max(points) - FREE_FILES)
    return found


def slopes(document):
    """What is said of it, a line each."""
    _, scale, unit = UNITS[document["kind"]]
    for phase, (whole, last, exponent) in growth(document).items():
        yield f"{phase}: {whole * scale:.1f} {unit}; between the two largest {last * scale:.1f}, exponent {exponent:.2f}"
    if document["kind"] == "files":
        for phase, number in bytes_per_file(document).items():
            yield f"{phase}: {number:.0f} bytes of memory for each file beyond {FREE_FILES:,}"


def short(number):
    """1,000 as 1k; three digits at most."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def axis(values, logarithmic):
    """Ticks that hold all values, and a function from a value to its part of the axis, 0 to 1."""
    if not logarithmic:
        step = fifth(max(values))
        ticks = [step * n for n in range(math.ceil(max(values) / step) + 1)]
        return ticks, lambda value: value / ticks[-1]
    ticks = [10.0 ** n for n in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9) + 1)]
    return ticks, lambda value: math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])


def fifth(most):
    """About a fifth of the greatest value: 1, 2 or 5 times a power of ten."""
    least = (most or 1) / 5
    power = 10 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def apart(wanted, least):
    """Places for labels that keep their order and a distance."""
    found, last = {}, -math.inf
    for name, place in sorted(wanted.items(), key=lambda item: item[1]):
        found[name] = last = max(place, last + least)
    return found


def picture(title, across, up, lines, dashed, logarithmic):
    """Lines of points, and one that they are compared with, over two axes of the same kind."""
    lines = {name: line for name, line in lines.items() if line}
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    along, part_x = axis([x for x, _ in points], logarithmic)
    ticks, part_y = axis([y for _, y in points], logarithmic)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x, y):
        return LEFT + wide * part_x(x), TOP + high * (1 - part_y(y))

    def drawn(line):
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<clipPath id="field"><rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}"/></clipPath>',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="14">{title}</text>',
           f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>',
           f'<text x="16" y="{TOP + high / 2}" text-anchor="middle" transform="rotate(-90 16 {TOP + high / 2})">{up}</text>']
    for tick in ticks:
        _, y = at(along[-1], tick)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in along:
        x, _ = at(tick, ticks[-1])
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + high}" stroke="#eee"/>'
                   f'<text x="{x:.1f}" y="{TOP + high + 16}" text-anchor="middle">{short(tick)}</text>')
    if dashed:
        out.append(f'<polyline points="{drawn(dashed)}" fill="none" stroke="#888" stroke-dasharray="4 4" clip-path="url(#field)"/>')
    labels = apart({name: at(*line[-1])[1] + 4 for name, line in lines.items()}, 14)
    for name, line in lines.items():
        out.append(f'<polyline points="{drawn(line)}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>' for x, y in (at(*point) for point in line)]
        out.append(f'<text x="{at(*line[-1])[0] + 8:.1f}" y="{labels[name]:.1f}" fill="{COLOURS[name]}">{name} {short(line[-1][1])}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def proportional(line):
    """From the last point back to where the line begins."""
    (first, _), (last, y) = line[0], line[-1]
    return [(first, y * first / last), (last, y)]


def allowed(kind, sizes):
    """The most memory, in MiB, that the targets allow at each size."""
    free = FREE_FILES if kind == "files" else math.inf
    corners = sorted({min(sizes), min(max(sizes), max(free, min(sizes))), max(sizes)})
    return [(size, MOST_MEMORY_MIB + max(0, size - free) * MOST_BYTES_A_FILE / (1 << 20)) for size in corners]


def pictures(document):
    """Name of the file and SVG text: time, and memory."""
    kind, (across, _, _) = document["kind"], UNITS[document["kind"]]
    time = {phase: series(document, phase, "wall_seconds") for phase in PHASES}
    memory = {phase: [(x, y / (1 << 20)) for x, y in series(document, phase, "peak_memory_bytes")] for phase in PHASES}
    drawn = {}
    if time["cold"]:
        drawn[f"growth-{kind}-time.svg"] = picture(f"Seconds against {across} (dashed: in proportion)", across, "seconds", time,
                                                   proportional(time["cold"]), True)
    if memory["cold"]:
        drawn[f"growth-{kind}-memory.svg"] = picture(f"Peak memory against {across} (dashed: the target)", across, "MiB", memory,
                                                     allowed(kind, [x for x, _ in memory["cold"]]), False)
    return drawn
