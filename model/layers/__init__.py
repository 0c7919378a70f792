"""Layers, parameter tables and optimizers that models are built from."""
