"""Real servers for tests: each starts on ports and directories of its own and ends with its test."""
