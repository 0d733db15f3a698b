"""`dicomnode simulate`: a hospital's day of traffic against a node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from dicomnode.config.values import AETitle
from dicomnode.console import EXIT_FAILED, Json, err, show
from dicomnode.network.calling import sender
from dicomnode.simulation import account, hospital, likeness, simulate, telling
from dicomnode.simulation.day import Request
from dicomnode.simulation.hospital import GENERAL, Profile
from dicomnode.simulation.protocols import Size
from dicomnode.simulation.simulate import Simulation

_FASTEST = "max"
_SLOWEST = 0.01  # a day in a hundred
_LAST_HOUR = 24

Studies = Annotated[int, typer.Option(min=1, max=100_000, help="How many the day has.")]
Hours = Annotated[str, typer.Option(help="The part of the day: 7-11, in whole hours.")]
Speed = Annotated[
    str, typer.Option(help='Minutes of the day in one of ours; "max": as fast as it goes.')
]
Seed = Annotated[int, typer.Option(help="The same seed makes the same day.")]
SizeOption = Annotated[Size, typer.Option(help="How large images and series are.")]
ProfileOption = Annotated[
    Path | None, typer.Option(help="Stations, rates and faults, in a TOML file.")
]
Like = Annotated[
    Path | None,
    typer.Option(help="A folder of DICOM files to make the studies like, under other names."),
]
Ledger = Annotated[Path | None, typer.Option(help="A file for each answer, as JSON lines.")]
Really = Annotated[
    bool,
    typer.Option(
        "--really", help="Fill the archive of another machine with people who do not exist."
    ),
]


def simulate_(
    *,
    to: Annotated[str, typer.Option(help="AET@HOST:PORT")],
    studies: Studies = 100,
    hours: Hours = "0-24",
    speed: Speed = "60",
    seed: Seed = 1,
    size: SizeOption = Size.SMALL,
    profile: ProfileOption = None,
    like: Like = None,
    calling: Annotated[str | None, typer.Option(help="What every station calls itself.")] = None,
    ledger: Ledger = None,
    really: Really = False,
    as_json: Json = False,
) -> None:
    """Send a hospital's day: scheduled studies, emergencies, priors, and senders that misbehave.

    Nobody in it exists. The node must know the senders: SIM_CT1 and so on, or what --calling says.
    """
    destination = sender.parse_destination(to)
    if not really:
        destination = simulate.on_loopback(destination)
    stations = hospital.read(profile) if profile is not None else GENERAL
    alike = likeness.read(like) if like is not None else None
    simulation = Simulation(
        profile=_called(stations, calling),
        request=Request(
            studies=studies,
            seed=seed,
            hours=_hours(hours),
            size=size,
            shapes=alike.shapes if alike else (),
            variety=stations.variety + (alike.variety if alike else ""),
        ),
        like=alike,
        speed=_speed(speed),
    )
    plan = simulation.plan()
    planned = simulate.planned(plan)
    with telling.progress(err, objects=planned["objects"]) as tell:
        document = simulate.run(simulation, plan, to=destination, tell=tell, ledger=ledger)
    show(document, as_json=as_json, text=telling.account)
    raise typer.Exit(0 if account.is_well(document) else EXIT_FAILED)


def _called(profile: Profile, calling: str | None) -> Profile:
    if calling is None:
        return profile
    try:
        TypeAdapter(AETitle).validate_python(calling)
    except ValidationError as error:
        raise typer.BadParameter(f"{calling!r} is no AE title") from error
    stations = [one.model_copy(update={"ae_title": calling}) for one in profile.stations]
    return profile.model_copy(update={"stations": tuple(stations)})


def _hours(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2})-(\d{1,2})", text.strip())
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 <= first < last <= _LAST_HOUR:
        raise typer.BadParameter(f"{text!r} is no part of a day: write 7-11")
    return first, last


def _speed(text: str) -> float | None:
    if text.strip() == _FASTEST:
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not _SLOWEST <= speed < float("inf"):
        raise typer.BadParameter(f'{text!r} is no speed: write 60, or "max"')
    return speed
