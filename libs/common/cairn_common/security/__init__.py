"""Who may say what on NATS: accounts, users, and the short-lived credentials of tasks.

- `natsjwt` makes keys and signed tokens, as NATS understands them.
- `accounts` sets up a NATS server: run as a program, it writes the configuration and everybody's
  credentials.
- `passes` gives each attempt of a task credentials of its own.
"""

from cairn_common.security.passes import PassIssuer, subjects_of

__all__ = ["PassIssuer", "subjects_of"]
