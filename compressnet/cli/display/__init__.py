"""What commands return, drawn: data on stdout, progress and errors on stderr. The only importer of rich."""
