"""The Storage Commitment Push Model (PS3.4 Annex J), on both sides."""
