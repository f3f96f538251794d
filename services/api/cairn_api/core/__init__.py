"""Pure decisions and presentations of the API: values in, values out."""
