"""`tilewire upscale`: files in, files out, through a server.

`command` has the options, `sources` finds the pictures, `sizing` says how large each result becomes, `plan`
which file it becomes, `record` what was done before; `work` has a server do it, `targets` writes the results,
`report` shows it all.
"""

from server.commands.upscale.command import upscale

__all__ = ["upscale"]
