"""Stand-ins for small programs that tutorials use and machines may lack.

They are found last on a task's PATH, so that the machine's own win.
"""
