"""Audit messages as rows: written in the transaction of what they tell of, sent in their order.

`told` has one function for each thing that may happen here, `studies` whose and of what kind the
instances are, `outbox` the rows. All of them do nothing on a database that has no recorder: then
no collector is configured.
"""
