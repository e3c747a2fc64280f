"""What machines have and what of it is free, as the rest of the program sees it."""
