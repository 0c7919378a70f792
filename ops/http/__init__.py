"""The HTTP server of the exporters and of the monitor's page: bounded in time, size, connections and threads."""
