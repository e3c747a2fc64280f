"""Targets behind a scheduler: one adapter for each scheduler, one engine for all of them."""
