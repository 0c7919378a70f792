"""Point-in-time lookups in the stages' stores."""
