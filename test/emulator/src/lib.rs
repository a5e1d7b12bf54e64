//! An in-memory Blob service, good enough to develop, demonstrate and benchmark against.
