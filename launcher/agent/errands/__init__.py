"""Programs that travel to the far end only when they are asked for; each imports nothing of ours."""
