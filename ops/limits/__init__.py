"""What a process needs of the system, and what its limits allow."""
