"""What the parts of the node are told, made from the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicomnode import bundle, routing
from dicomnode.bundle import Bundle
from dicomnode.config import Audit, Configuration, Tls
from dicomnode.intake import Patience
from dicomnode.network.auditing.collector import Collector
from dicomnode.network.auditing.reporter import Keeping
from dicomnode.network.tls import Certificates, Security
from dicomnode.pauses import Pauses

_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class CollectorTls:
    """What [tls] would say, were the collector a peer."""

    certificate: Path | None
    key: Path | None
    key_password_file: Path | None
    ca: Path | None
    client_certificates: Literal["required", "none"] = "none"


def keep_s(configuration: Configuration) -> float:
    """Seconds for which a study that ended well is kept; infinite: for ever."""
    days = configuration.disk.keep_delivered_days
    return math.inf if days is None else days * _DAY_S


def pauses(configuration: Configuration) -> Pauses:
    """How long a peer that does not answer, or refuses for now, is left alone."""
    deliver = configuration.deliver
    return Pauses(first_s=deliver.retry_s, longest_s=deliver.retry_max_s)


def collector(audit: Audit, node_tls: Tls) -> Collector | None:
    """Where audit messages go; `None` where that is nowhere.

    Args:
        audit: What is said of the collector.
        node_tls: The files of [tls] take the place of those that `audit` does not name.

    Raises:
        Misconfigured: As `Certificates`.
    """
    if audit.host is None:
        return None
    security = None
    if audit.transport == "tls":
        name = audit.host if audit.tls_name is None else audit.tls_name
        security = Security(certificates=Certificates(collector_tls(audit, node_tls)), name=name)
    return Collector(
        host=audit.host, port=audit.port_to_call, transport=audit.transport, security=security
    )


def collector_tls(audit: Audit, node_tls: Tls) -> CollectorTls:
    """The files that the collector is called with over TLS."""
    # Certificate, key and password belong together: all are of one table.
    ours = node_tls if audit.certificate is None else audit
    return CollectorTls(
        certificate=ours.certificate,
        key=ours.key,
        key_password_file=ours.key_password_file,
        ca=audit.ca or node_tls.ca,
    )


def keeping(configuration: Configuration) -> Keeping:
    """How long audit messages wait for a collector that is away."""
    audit = configuration.audit
    return Keeping(longest_s=audit.keep_days * _DAY_S, most=audit.keep_messages)


def patience(configuration: Configuration) -> Patience:
    """How long a study is waited for."""
    complete = configuration.complete
    return Patience(settle_s=complete.settle_s, quiet_s=complete.quiet_s)


def rules(configuration: Configuration) -> tuple[routing.Rule, ...]:
    """The rules of a configuration, with what its bundles ask.

    Raises:
        Misconfigured: As `bundle.load` and `routing.rules`.
    """
    return routing.rules(configuration, bundles(configuration))


def bundles(configuration: Configuration) -> dict[str, Bundle]:
    """Model → its bundle.

    Raises:
        Misconfigured: As `bundle.load`.
    """
    return {
        name: bundle.load(model.bundle, manifest=model.manifest)
        for name, model in configuration.models.items()
    }


def digests(loaded: Mapping[str, Bundle]) -> dict[str, str]:
    """Model → the digest of its bundle."""
    return {name: one.digest for name, one in loaded.items()}
