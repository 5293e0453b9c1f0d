"""Model files from the Hugging Face hub: sizes first, resumed where it stopped, checked before it counts.

    wanted     which files, from plugin.toml          hub        one repository's file: look, fetch
    plan       what is there, what is to be fetched   downloader does it: room, fetch, check, put in place
    digest     checksums                              pins       which commit a repository is held at

The host has a downloader of its own for the files that every user needs; this one works without the host.
"""
