//! The target `server` as a program of libFuzzer. Holds nothing but the call: what must hold stands in `targets`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("server", bytes));
