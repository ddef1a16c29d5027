"""Durable runs and human decisions: a SQLite run store, signed tokens, encryption at rest."""
