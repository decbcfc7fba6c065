"""The audit: a guard attacked by adversaries who know ever more, beside its rivals, and told in plain words. See `docs/audit.md`."""
