"""Controls that several widgets have, and what is remembered and checked of them."""
