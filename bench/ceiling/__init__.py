"""What the machine allows: raw blocking sockets, SHA-256 alone, loopback TCP alone; no code of this library
except the hint for huge pages."""
