"""What a cluster's objects should be and what they mean: values in, values out."""
