//! For what is built: platforms, Python, base, buildpacks' additions.
