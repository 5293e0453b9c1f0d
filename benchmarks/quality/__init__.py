"""The held-out evaluation of a model of the synthetic world, driven through the product's own pipeline.

    cases -> maker (a session with files, as a user has) -> judges of frames and samples -> figures with their bars

`judge`, `pictures`, `sounds`, `chimes`, `borders` are pure: frames and samples in, marks out. `row_*` make a row
of the table each, or a few that are alike.
"""
