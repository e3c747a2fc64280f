"""MicroPython's ESP8266: what its firmware file says, and where its file system lies."""
