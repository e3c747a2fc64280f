"""Cards for Raspberry Pis: what lies on the boot partition so the first start makes a host of a class."""
