"""The whole system on one machine without containers: `make up` and `make down`."""
