"""Annotate and retrain: paint over what is wrong, press Retrain, look again."""
