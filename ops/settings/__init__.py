"""Settings from defaults, TOML, environment and flags."""
