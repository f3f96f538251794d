"""What the API does: routes, and what goes on behind them."""
