"""What people change while the stream runs: prompt and parameters, and which LoRAs and paths a request may name.
Turns JSON into calls of the session; knows nothing of media or connections.
"""
