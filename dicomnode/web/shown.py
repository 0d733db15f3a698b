"""Templates: how values are written for people, and what every page has in common."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dicomnode import __version__
from dicomnode.archive.access.people import Role
from dicomnode.web import security, surroundings

STATIC = Path(__file__).parent / "static"

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_THEMES = ("light", "dark")
_SHORT_UID = 18


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One entry of the navigation."""

    name: str
    path: str
    role: Role = Role.VIEWER


_PLACES = (
    _Place(name="Studies", path="/studies"),
    _Place(name="Accounting", path="/accounting"),
    _Place(name="Models", path="/models"),
    _Place(name="Peers", path="/peers"),
    _Place(name="Workers", path="/workers"),
    _Place(name="Alerts", path="/alerts"),
    _Place(name="Configuration", path="/configuration", role=Role.ADMINISTRATOR),
    _Place(name="People", path="/people", role=Role.ADMINISTRATOR),
    _Place(name="Audit", path="/audit", role=Role.ADMINISTRATOR),
)


def shown(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one, with what all have in common."""
    here = surroundings.of(request)
    visitor = security.seen(request)
    theme = request.cookies.get("theme", "")
    text = _templates.get_template(template).render(
        visitor=visitor,
        places=[p for p in _PLACES if visitor is not None and visitor.may(p.role)],
        path=request.url.path,
        now=here.clock(),
        node=here.configuration.node.ae_title,
        version=__version__,
        theme=theme if theme in _THEMES else "",
        assets=ASSETS,
        **values,
    )
    return HTMLResponse(text, status)


def digest_of(folder: Path) -> str:
    """A word that changes with the static files, so that browsers may keep them."""
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]


ASSETS = digest_of(STATIC)


def ago(at: float | None, now: float) -> str:
    """How long ago something was, in one unit."""
    if at is None:
        return "never"
    seconds = max(0.0, now - at)
    if seconds < 10:  # noqa: PLR2004
        return "just now"
    for unit, size in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def moment(at: float | None) -> str:
    """Day and time on the clock of this machine."""
    return "" if at is None else _local(at).strftime("%Y-%m-%d %H:%M:%S")


def clock_time(at: float | None) -> str:
    """The time on the clock of this machine, with milliseconds."""
    return "" if at is None else _local(at).strftime("%H:%M:%S.%f")[:-3]


def machine_time(at: float) -> str:
    """For the element `time`."""
    return _local(at).isoformat(timespec="seconds")


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def seconds(value: float | None) -> str:
    """A length of time, in the unit that suits it."""
    if value is None:
        return "\u2013"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 2 * _MINUTE_S:
        return f"{value:.1f} s"
    if value < 2 * _HOUR_S:
        return f"{value / _MINUTE_S:.0f} min"
    return f"{value / _HOUR_S:.1f} h" if value < 2 * _DAY_S else f"{value / _DAY_S:.0f} d"


def size(value: float) -> str:
    """Bytes, in the unit that suits them."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(value, 1024)), len(units) - 1) if value >= 1 else 0
    number = value / 1024**power
    return f"{number:.0f} {units[power]}" if power == 0 else f"{number:.1f} {units[power]}"


def count(value: int) -> str:
    """A number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def plural(value: int, one: str, many: str | None = None) -> str:
    """A number and what it counts."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def name_of_person(value: str) -> str:
    """A PN as people write it: family name, then the given ones (PS3.5 6.2.1)."""
    family, *given = value.partition("=")[0].split("^")
    rest = " ".join(part for part in given if part)
    return f"{family}, {rest}" if family and rest else family or rest


def day(value: str) -> str:
    """A DA with hyphens."""
    digits = value.strip()
    is_date = len(digits) == 8 and digits.isdigit()  # noqa: PLR2004 - PS3.5 6.2, DA
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if is_date else digits


def short(uid: str) -> str:
    """The end of a UID: what tells it from its neighbours."""
    return uid if len(uid) <= _SHORT_UID else f"…{uid[-_SHORT_UID:]}"


def words(value: str) -> str:
    """A state as people read it."""
    return value.replace("_", " ").replace("-", " ")


def query(values: dict[str, Any]) -> str:
    """The part of a URL behind the question mark, without what is empty."""
    kept = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""


def _tone(state: str) -> str:
    """The colour that a state has."""
    return _TONES.get(state.replace("_", " "), "quiet")


_TONES = {
    "delivered": "good",
    "confirmed": "good",
    "done": "good",
    "ready": "good",
    "not ready": "bad",
    "failed": "bad",
    "critical": "bad",
    "warning": "busy",
    "goes on": "bad",
    "held": "bad",
    "refused": "bad",
    "in progress": "busy",
    "receiving": "busy",
    "pending": "busy",
    "predicting": "busy",
    "delivering": "busy",
    "sending": "busy",
}


def _templates_with(filters: Sequence[Any]) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({one.__name__.lstrip("_"): one for one in filters})
    return made


_templates = _templates_with(
    [ago, moment, clock_time, machine_time, seconds, size, count, plural, name_of_person, day,
     short, words, query, _tone]
)  # fmt: skip
