"""Sign-in: local accounts, and OpenID Connect by settings."""
