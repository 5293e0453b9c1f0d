"""What every route shares: the form of refusals, bodies read within bounds, who may ask for what, the front door,
and the server with its deadlines. Knows nothing of the stream, of media or of any one route.
"""
