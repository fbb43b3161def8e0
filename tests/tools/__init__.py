"""Command-line tools that measure what the READMEs say."""
