"""Rules: what the routes of the configuration and the manifests of the models ask together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomnode.bundle import Bundle, Input
from dicomnode.config import Configuration, Peer, Route
from dicomnode.errors import Misconfigured
from dicomnode.job import Priority
from dicomnode.matcher import AnyOf, Compares, Equals, Matcher, Not
from dicomnode.routing.clause import SLICES, Clause, Origin

_LOCALIZER = "LOCALIZER"  # a value of Image Type (PS3.3 C.8.2.1.1.1 and its like)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which series a model is run on, and where its results go.

    Attributes:
        model_digest: SHA-256 over the bundle's lock.
        inputs: The model's input name → the clauses that a series for it satisfies.
        send_to: Names of peers.
        notify: Those that are told why there is no answer → "keep" or "reject": what becomes of
            that once there is one.
    """

    name: str
    model: str
    model_digest: str
    inputs: Mapping[str, tuple[Clause, ...]]
    send_to: tuple[str, ...]
    priority: Priority
    notify: Mapping[str, str] = field(default_factory=dict)


def rules(configuration: Configuration, bundles: Mapping[str, Bundle]) -> tuple[Rule, ...]:
    """The rules of a node, in the order of its routes.

    Args:
        configuration: Its routes name only models that it has.
        bundles: Model name → bundle, for every model that a route names.

    Raises:
        Misconfigured: A route does not name the inputs of its model.
    """
    return tuple(
        _rule(route, bundles[route.model], configuration.peers) for route in configuration.routes
    )


def _rule(route: Route, bundle: Bundle, peers: Mapping[str, Peer]) -> Rule:
    contracts = bundle.manifest.inputs
    asked = _asked(route, contracts)
    return Rule(
        name=route.name,
        model=route.model,
        model_digest=bundle.digest,
        inputs={
            name: (*_route_clauses(asked[name]), *_model_clauses(contract))
            for name, contract in contracts.items()
        },
        send_to=tuple(route.send_to),
        priority=route.priority,
        notify={
            name: peers[name].gets.superseded
            for name in route.send_to
            if peers[name].gets.not_analysed
        },
    )


def _asked(route: Route, contracts: Mapping[str, Input]) -> Mapping[str, Mapping[str, Matcher]]:
    """Input name → what the route asks of its series."""
    if route.inputs is None and len(contracts) == 1:
        return {name: route.series or {} for name in contracts}
    asked = route.inputs or {}
    if set(asked) != set(contracts):
        raise Misconfigured(
            "route-inputs-differ",
            f"The route {route.name!r} must say which series feeds each input of the model "
            f"{route.model!r}: write {', '.join(f'inputs.{n} = {{…}}' for n in contracts)}.",
        )
    return asked


def _route_clauses(asked: Mapping[str, Matcher]) -> tuple[Clause, ...]:
    return tuple(
        Clause(keyword=keyword, matcher=form, origin=Origin.ROUTE)
        for keyword, form in asked.items()
    )


def _any_of(forms: tuple[Matcher, ...]) -> Matcher:
    return forms[0] if len(forms) == 1 else AnyOf(forms=forms)


def _model_clauses(contract: Input) -> tuple[Clause, ...]:
    """What of a manifest can be told from headers alone; the rest is told when it is loaded."""
    least, most = contract.slices.min, contract.slices.max
    classes = tuple(Equals(value=keyword) for keyword in contract.sop_classes)
    modalities = tuple(Equals(value=modality.strip()) for modality in contract.modalities)
    asked: list[tuple[str, Matcher]] = [
        ("Modality", _any_of(modalities)),
        ("SOPClassUID", _any_of(classes)),
    ]
    if contract.form == "volume" and (most is None or most > 1):
        asked.append(("ImageType", Not(form=Equals(value=_LOCALIZER))))
    if least is not None:
        asked.append((SLICES, Compares(sign=">=", limit=least)))
    if most is not None:
        asked.append((SLICES, Compares(sign="<=", limit=most)))
    return tuple(
        Clause(keyword=keyword, matcher=form, origin=Origin.MODEL) for keyword, form in asked
    )
