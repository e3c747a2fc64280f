"""The probe: what a machine has and what of it is free.  A program of its own (launcher/agent/probes.py runs it)."""
