"""What goes onto boards and cards: firmware that is checked, file systems that are made, images that are flashed."""
