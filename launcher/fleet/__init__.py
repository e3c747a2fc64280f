"""Many hosts from one list (`farkernel fleet`): the roster, what is made from it, how they are, setting them back."""
