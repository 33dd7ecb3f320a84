//! The codec against the RFCs' own vectors, against two other implementations, and against bytes nobody meant.
//!
//! Never opens a socket; every story is a pure function of bytes.
#![forbid(unsafe_code)]

mod differential;
mod framing;
mod names;
mod packet;
mod parse;
mod proxy;
mod round_trip;
mod sample;
mod vectors;
