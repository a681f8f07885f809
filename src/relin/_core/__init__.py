"""The problem and its linearisation: what every other part of relin is built from."""
