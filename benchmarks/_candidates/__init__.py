"""What is compared. Each module imports only what its own candidates need."""
