"""How good a head is, how sure that is, and where it errs."""
