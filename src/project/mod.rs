//! What a project is: facts, no decisions, and no Python run to find them.
