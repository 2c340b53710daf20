//! Layers and launch configuration become an image.
