"""Evaluate: a labels layer against a true one."""
