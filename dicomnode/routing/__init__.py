"""Study + rules → jobs; and for each rule and series, which clause decided.

A rule's clauses on one input are what the route asks for, then what the model's manifest asks for,
always in that order. Each clause is asked of every instance of a series, never of the first file
alone, and ends in one of three answers:

* it holds, for every instance;
* it does not hold, for at least one: the series does not fit, and the first such clause is named;
* it cannot be told: then the rule is held for a person to look at. A clause that certainly does
  not hold outweighs it, as one "no" settles an "and".

Nothing is guessed: where two series could feed the same input of a model with several, no job is
made and the rule is held.
"""

from __future__ import annotations

from dicomnode.routing.clause import INSTANCES, Clause, Origin, Outcome
from dicomnode.routing.decision import Decided, Decision, NewJob, Routed, explain, hold, route
from dicomnode.routing.rule import Rule, rules

__all__ = [
    "INSTANCES",
    "Clause",
    "Decided",
    "Decision",
    "NewJob",
    "Origin",
    "Outcome",
    "Routed",
    "Rule",
    "explain",
    "hold",
    "route",
    "rules",
]
