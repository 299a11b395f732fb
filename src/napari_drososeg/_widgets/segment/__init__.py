"""Segment stack: from an image layer and a network to a labels layer that fills while one watches."""
