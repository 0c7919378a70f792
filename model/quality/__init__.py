"""Prequential quality: mergeable sketches of AUC, GAUC, log loss and calibration."""
