//! OCI vocabulary: references, descriptors, images. No I/O.
