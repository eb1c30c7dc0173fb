"""A day's report as one HTML page: tables, and plots as inline SVG; it loads nothing and runs nothing."""

from typing import Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from workers.ledger.day import Day

_WIDTH: Final = 720  # of a plot, in its own units
_HEIGHT: Final = 160
_ROW: Final = 24  # of a source's bar
_GAP: Final = 1.0
_LEAST: Final = 3.0  # of a bar: two in quarantine are to be seen beside thirty thousand
_MARKS: Final = 4  # lines of the scale

# Stored first; what needs a person is warm. Told apart without colour by order and legend, and by each bar's title.
PLACES: Final = (
    ("stored", "#2b7a4b"),
    ("duplicates", "#8fb8de"),
    ("not_yet_stored", "#c9c9c9"),
    ("conflicts", "#e0a100"),
    ("quarantined", "#c0392b"),
    ("discarded", "#6d6d6d"),
)


class Bar(NamedTuple):
    """A rectangle and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str


class Label(NamedTuple):
    """A text and where its middle or end is."""

    x: float
    y: float
    text: str


class Plot(NamedTuple):
    """What a plot is drawn of."""

    width: float
    height: float
    bars: list[Bar]
    labels: list[Label]
    lines: list[float]  # heights of the scale's marks


def page_of(day: Day) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("workers.cli", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # ISO 80000-1: a thin space between thousands.
    environment.filters["count"] = lambda number: f"{number:,}".replace(",", "\u202f")
    environment.filters["size"] = size_text
    template = environment.get_template("report.html")
    return template.render(
        day=day, hours=hours_plot(day.instances_by_hour), sources=sources_plot(day), places=PLACES
    )


def size_text(count: int) -> str:
    """Bytes for people."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:  # noqa: PLR2004 - SI
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def hours_plot(instances: list[int]) -> Plot:
    """Instances by hour of the day."""
    top = _round_top(max(instances, default=0))
    step = _WIDTH / max(len(instances), 1)
    bars = [
        Bar(
            number * step + _GAP,
            _HEIGHT - count / top * _HEIGHT,
            step - 2 * _GAP,
            count / top * _HEIGHT,
            PLACES[0][1],
            f"hour {number}: {count} instances",
        )
        for number, count in enumerate(instances)
    ]
    marks = [_HEIGHT - _HEIGHT * mark / _MARKS for mark in range(_MARKS + 1)]
    labels = [Label(-6, y + 4, f"{top * mark // _MARKS}") for mark, y in enumerate(marks)]
    labels += [
        Label((number + 0.5) * step, _HEIGHT + 16, str(number)) for number in range(0, len(instances), 3)
    ]
    return Plot(_WIDTH, _HEIGHT, bars, labels, marks)


def sources_plot(day: Day) -> Plot:
    """Where the instances of each source are, one bar a source."""
    most = max((one.instances for one in day.sources), default=0) or 1
    bars, labels = [], []
    for number, one in enumerate(day.sources):
        x = 0.0
        labels.append(Label(-6, number * _ROW + _ROW / 2 + 4, one.source))
        for place, colour in PLACES:
            count: int = getattr(one, place)
            width = max(count / most * _WIDTH, _LEAST) if count else 0.0
            if count:
                title = f"{one.source}: {count} {place.replace('_', ' ')}"
                bars.append(Bar(x, number * _ROW + 3, width, _ROW - 6, colour, title))
            x += width
    return Plot(_WIDTH, _ROW * len(day.sources), bars, labels, [])


def _round_top(most: int) -> int:
    """The end of a scale: a multiple of its marks that reads well."""
    step = 1
    while step * _MARKS < most:
        step = step * 2 if str(step)[0] in "15" else step * 5 // 2
    return step * _MARKS
