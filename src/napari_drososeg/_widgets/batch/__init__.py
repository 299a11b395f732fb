"""Batch predict: a folder of images to a folder of labels."""
