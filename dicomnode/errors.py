"""Every error the node can name, by what happens next.

::

    NodeError
    ├── Refused          the sender is told: a DIMSE status and a reason
    ├── NotApplicable    the rule ends here: the model is not meant for this input
    ├── RetryLater       the same step may succeed later: it is repeated with a delay
    ├── Failed           no repetition helps: the job is parked and shown
    │   ├── UnsuitableSeries   the images do not make the volume that they should
    │   ├── ModelFailed        the bundle did not run, or what it said cannot be used
    │   └── ResultMismatch     an object read back differs from its source or the prediction
    └── Misconfigured    an administrator must act before anything can run
"""

from __future__ import annotations


class NodeError(Exception):
    """Something went wrong that the node has a name for.

    Attributes:
        reason: A stable word in kebab case (`"missing-slices"`): what journals, metrics and tests
            compare.
        detail: One sentence for a person: what was found and what to do. Never patient data.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Refused(NodeError):
    """An instance is turned away; the sender gets `status` (PS3.4 Annex B.2.3, PS3.7 Annex C).

    So is an association: then `status` is what its A-ASSOCIATE-RJ says (PS3.8 Table 9-21).

    Attributes:
        element: Keyword of the Offending Element, or "" where no single one is to blame.
    """

    def __init__(self, reason: str, detail: str, *, status: int, element: str = "") -> None:
        super().__init__(reason, detail)
        self.status = status
        self.element = element


class NotApplicable(NodeError):
    """The model is not meant for this input."""


class RetryLater(NodeError):
    """The same step may succeed later."""


class Failed(NodeError):
    """No repetition helps: the job is parked and shown."""


class UnsuitableSeries(Failed):
    """The images of a series do not make the volume that they should."""


class ModelFailed(Failed):
    """The bundle did not run, or what it said cannot be used."""


class ResultMismatch(Failed):
    """A result, read back from its bytes, differs from its source or from the prediction."""


class Misconfigured(NodeError):
    """An administrator must act before anything can run."""
