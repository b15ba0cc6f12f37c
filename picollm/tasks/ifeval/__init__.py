"""IFEval: instructions whose obedience a program can verify."""
