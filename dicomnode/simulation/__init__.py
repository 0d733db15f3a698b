"""A hospital's day of traffic against a node: what is sent, by whom, how well, and what came back.

::

    hospital    who sends, how much and how badly: a profile
    day         a profile and a seed → the plan: studies, and the associations that bring them
    images, documents
                a planned object → a data set that the standard allows
    likeness    the same from the files of a folder
    traffic     the plan → associations with a node, and an answer for each object
    account     the answers → what was sent, acknowledged and refused

Nothing here is a real person. Each object says so: Quality Control Subject (0010,0200) is YES, and
comments and institution name it as simulated.
"""
