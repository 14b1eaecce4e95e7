//! A TURN client without I/O: the other end of the wire for tests, the controller's probe, `doctor` and `bench`.
