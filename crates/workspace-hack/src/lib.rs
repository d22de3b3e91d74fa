//! Makes build and test share what they compile; holds no code.
//!
//! Deliberately not in it: anything that a program could call.
