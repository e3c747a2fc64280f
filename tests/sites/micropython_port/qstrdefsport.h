// No names of our own beyond those in the code.
