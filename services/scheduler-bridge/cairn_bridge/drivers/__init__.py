"""The clusters that a bridge can drive; see `cairn_bridge.cluster` for what each must do."""
