"""What is stored is checked, and what no meta names is removed."""
