"""The bridge's decisions: values in, values out."""
