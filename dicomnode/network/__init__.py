"""DICOM on the wire.

`association`, `connection`, `tls` and `checkpoint` are what both sides stand on: `serving` is the
receiver, `calling` asks for associations and sends, `commitment` promises and hears promises.
`auditing` speaks no DICOM: it brings audit messages to their collector.
"""
