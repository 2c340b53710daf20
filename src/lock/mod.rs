//! The lock as data (PEP 751). Does not know how it was solved.
