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

Beside it stand, none of them in the way of a study:

=================================  =============================================================
where                              what
=================================  =============================================================
`study`, `job`, `prediction`,      the nouns of the table, as values
`bundle`, `profile`, `matcher`
`routed`                           what routing says → rows
`node`, `supervisor`, `reload`     the receiving side put together, kept running, changed meanwhile
`ending`, `hangup`, `pauses`       when a process ends, reads its file again, tries once more
`config`, `check`, `settings`      the file, what is wrong with it, what each part is told of it
`cli`, `commands`, `console`,      the command line: words → answers → text
`inquiry`, `render`
`web`, `oidc`                      the administrator's page, which keeps nothing; signing in to it
`alert`, `alerting`                what an administrator is told of without asking
`auditing`                         what a collector is told of whose images went where
`onboarding`                       how a model comes to the node
`replay`, `simulation`             a changed rule, a hospital's day: tried before they matter
`demo`, `pacs`                     everything once, from end to end
`errors`, `log`, `status`,         the words that all the others use, and what is safe
`uid`, `durable`
=================================  =============================================================
"""

__version__ = "0.1.0"
#: What the node calls itself in every object that it makes.
NAME = "dicomnode"
