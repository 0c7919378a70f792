"""The whole system on one machine without containers: what `make up` starts and `make down` ends."""
