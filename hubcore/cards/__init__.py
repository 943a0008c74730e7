"""Cards of a user's own: adding, editing and checking the records of a registry file."""
