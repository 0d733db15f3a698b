"""Audit messages (PS3.15 A.5): what they say, as XML, and how syslog carries them. Pure.

`codes` has the vocabulary, `message` the elements of the schema and their XML, `events` one
function for each event of A.5.3 that the node tells of, `recorder` who it is that tells, `syslog`
the frame around a message (RFC 5424, 5425 and 5426).

A message names patients, as the standard asks. It goes to the collector and nowhere else, never
into the log.
"""
