"""A DICOM node that answers with AI results.

The way of a study, and where each stage lives:

==  =================  ==================================================  ========================
#   stage              takes → gives                                       where
==  =================  ==================================================  ========================
1   association        A-ASSOCIATE-RQ → accepted peer, or named refusal    `network`
2   received instance  C-STORE-RQ → bytes safe on disk → DIMSE status      `network`, `archive`
3   complete study     instances + evidence → `Study` revision             `completeness`, `intake`
4   routed jobs        `Study` + rules → `Job`s, and why or why not        `routing`, `job`
5   queued             pending `Job` row → a message carrying its id       `workers.dispatch`
6   loaded volume      series → `Volume`, or a refusal                     `volume`
7   prediction         bundle + volume → `Prediction`                      `workers.inference`
8   DICOM results      `Prediction` + sources → SEG, SR, checked           `results`
9   delivered          results → destination, confirmed                    `workers.deliver`
==  =================  ==================================================  ========================

Beside it stands `web`, the administrator's page: it shows all of this, and keeps nothing.
"""

__version__ = "0.1.0"
#: What the node calls itself in every object that it makes.
NAME = "dicomnode"
