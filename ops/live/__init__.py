"""The live system on one machine: supervised processes and their status."""
