//! The command line: parses, dispatches, prints. The only room that prints.
