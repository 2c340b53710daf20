//! Renders the serving app from the project's schema.
