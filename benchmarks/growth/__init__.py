"""What grows with the size of a workflow, or with the number of workflows there have been."""
