//! What goes in: the production set, its grouping and the launch.
