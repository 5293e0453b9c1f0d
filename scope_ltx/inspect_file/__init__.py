"""What a safetensors file is, told from its header alone: `scope-ltx inspect`. Imports no torch."""

from scope_ltx.inspect_file.report import FileReport, file_kind, inspect_file

__all__ = ["FileReport", "file_kind", "inspect_file"]
