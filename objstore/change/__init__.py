"""What is stored is changed: deleted, renamed, linked, described anew."""
