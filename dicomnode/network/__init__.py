"""DICOM on the wire: associations, the acceptor, storage, the sender."""
