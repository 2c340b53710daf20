//! Building what is not a wheel yet: sdists (PEP 517) and rust extensions.
