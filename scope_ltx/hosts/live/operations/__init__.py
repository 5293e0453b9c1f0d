"""How the server is doing, for the page, a supervisor, Prometheus and the log; and what keeps a long run even.
Reads the other parts and changes none of them.
"""
